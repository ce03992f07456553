"""Flat field: shading is divided out, as the definition in float64 says, and stays so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import fapm
import parts
import stripes
from conftest import Command, Refusal
from fapm import Detector
from fapm.bundle.archive import read_archive
from fapm.config import Config
from fapm.errors import BundleError, ConfigError, FapmError, ImageError
from fapm.frames.flatfield import FlatField
from fapm.frames.layout import Layout, layout_of
from fapm.frames.stage import Sample
from forgery import Forgery
from framing import square

Picture = NDArray[np.uint8]
EDGE = 64
TINT = (190.0, 160.0, 130.0)  # of the surface: not grey, since lamps and papers are not


def light_at(height: int = EDGE, width: int = EDGE) -> NDArray[np.float64]:
    """A lamp to the right and above: the far corner gets a quarter of the light, ``[h, w]``."""
    y, x = np.mgrid[:height, :width]
    far = np.hypot((x / (width - 1) - 0.8) / 0.8, (y / (height - 1) - 0.2) / 0.8)
    return 1 / (1 + 1.5 * far**2)


def shaded(picture: Picture) -> Picture:
    """What the camera shows of an evenly lit picture under that lamp."""
    field = light_at(*picture.shape[:2])[..., None]
    return (picture * field).round().clip(0, 255).astype(np.uint8)


def surface(height: int = EDGE, width: int = EDGE) -> Picture:
    return (light_at(height, width)[..., None] * TINT).round().astype(np.uint8)


def write(path: Path, picture: Picture) -> str:
    Image.fromarray(picture).save(path)
    return str(path)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("field") / "surface.png", surface())


def learn(path: str, layout: Layout, **fields: Any) -> FlatField:
    config = Config.create(flat_field=path, **fields)
    return FlatField.learn(Sample(config, layout, "bicubic", [np.zeros((8, 8, 3), np.uint8)]))


# The definition


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), low=st.integers(1, 90), shape=st.sampled_from([(9, 14), (32, 32)]))
def test_a_frame_is_divided_by_the_light_of_its_place(
    seed: int, low: int, shape: tuple[int, int]
) -> None:
    """Channel by channel, by no more than 4, and no brighter than white."""
    rng = np.random.default_rng(seed)
    light = rng.uniform(low / 10, 200, (*shape, 3))
    mean = light.mean(axis=(0, 1))
    stage = FlatField((light / mean).astype(np.float32), shape)
    gain = np.minimum(np.maximum(mean / light, 1 / 4), 4)
    np.testing.assert_allclose(stage.gain, gain, rtol=1e-5)
    frame = rng.integers(0, 256, (*shape, 3), np.uint8)
    found, trace = stage.apply(frame)
    assert trace is None
    assert found.dtype == np.uint8
    exact = np.minimum(frame.astype(np.float64) * gain, 255)
    assert np.abs(found - exact).max() <= 0.5 + 1e-3
    assert (found[frame * gain > 256] == 255).all()


def test_the_light_is_a_share_of_its_channel_s_mean(field: str) -> None:
    stage = learn(field, square(EDGE), resize=EDGE)
    picture = surface().astype(np.float64)
    expected = picture / picture.mean(axis=(0, 1))
    assert stage.field.shape == (EDGE, EDGE, 3)
    np.testing.assert_allclose(stage.field, expected, rtol=1e-5)
    np.testing.assert_allclose(stage.field.mean(axis=(0, 1)), 1, rtol=1e-4)
    # The surface itself becomes even, and keeps its colour and brightness; the far corner, darker
    # than a quarter of the mean, may stay dark.
    even, _ = stage.apply(surface())
    within = (stage.gain < 4).all(axis=2)
    assert within.mean() > 0.9
    assert np.abs(even[within] - picture.mean(axis=(0, 1))).max() <= 2


def test_a_large_field_is_kept_small_and_says_the_same(tmp_path: Path) -> None:
    """In boxes of whole pixels: what is kept is the mean of each."""
    large = surface(320, 512)
    layout = layout_of(Config.create(keep_aspect=True, resize=320), (320, 512))
    stage = learn(write(tmp_path / "s.png", large), layout, keep_aspect=True, resize=320)
    boxes = large.reshape(80, 4, 128, 4, 3).astype(np.float64).mean(axis=(1, 3))
    np.testing.assert_allclose(stage.field, boxes / boxes.mean(axis=(0, 1)), rtol=1e-4)
    even, _ = stage.apply(large)
    assert stage.gain.shape == (320, 512, 3)
    within = (stage.gain < 3.9).all(axis=2)
    assert np.abs(even[within].astype(float) - large.mean(axis=(0, 1))).max() <= 4


def test_the_field_is_cropped_as_frames_are(tmp_path: Path) -> None:
    path = write(tmp_path / "s.png", surface(96, 96))
    stage = learn(path, square(96, EDGE), resize=96, crop=EDGE)
    inner = surface(96, 96)[16:80, 16:80].astype(np.float64)
    np.testing.assert_allclose(stage.field, inner / inner.mean(axis=(0, 1)), rtol=1e-5)


def test_an_even_field_changes_nothing(tmp_path: Path) -> None:
    stage = learn(write(tmp_path / "s.png", np.full((EDGE, EDGE, 3), 180, np.uint8)), square(EDGE))
    frame = stripes.good(0)
    np.testing.assert_array_equal(stage.apply(frame)[0], frame)


def test_no_place_is_made_more_than_four_times_as_bright(tmp_path: Path) -> None:
    dirty = np.full((EDGE, EDGE, 3), 100, np.uint8)
    dirty[8:20, 8:20] = 0
    stage = learn(write(tmp_path / "s.png", dirty), square(EDGE), resize=EDGE)
    assert stage.gain.max() == 4
    assert np.isfinite(stage.gain).all()


# From fit to verdict


@pytest.fixture(scope="module")
def pair(field: str) -> tuple[Detector, Detector]:
    """Fitted on shaded pictures, without and with the field."""
    good = [shaded(picture) for picture in stripes.good_pictures()]
    return stripes.fitted(good), stripes.fitted(good, flat_field=field)


def test_a_dark_corner_is_as_bright_as_the_middle(pair: tuple[Detector, Detector]) -> None:
    even = stripes.good(70)
    corner = np.s_[44:, :20]  # far from the lamp
    middle = np.s_[22:42, 22:42]
    preparation = pair[1].fitted_.preparation
    found = preparation.read(shaded(even), max_pixels=10**6)
    assert not isinstance(found, fapm.Failure)
    was = float(shaded(even)[corner].mean() / shaded(even)[middle].mean())
    truth = float(even[corner].mean() / even[middle].mean())
    now = float(found.pixels[corner].mean() / found.pixels[middle].mean())
    assert was < 0.6 * truth
    assert now == pytest.approx(truth, rel=0.06)


def test_a_dark_defect_in_a_dark_corner_is_found(pair: tuple[Detector, Detector]) -> None:
    picture = stripes.good(70).astype(int)
    picture[44:60, 4:20] -= 45
    bad = shaded(picture.clip(0, 255).astype(np.uint8))
    found = pair[1].predict(bad)
    assert found.verdict == "defect"
    row, column = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
    assert row >= 40
    assert column < 24
    assert pair[1].predict(shaded(stripes.good(70))).verdict == "good"
    # In units of the threshold the defect is no fainter than without the field.
    shares = [d.score(bad) / d.threshold_ for d in pair]
    assert shares[1] > 0.95 * shares[0]


def test_it_survives_the_bundle_and_its_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "surface.png", surface())
    ours = stripes.fitted([shaded(p) for p in stripes.good_pictures(6)], flat_field=path)
    ours.save(tmp_path / "part.fapm")
    Path(path).unlink()  # the bundle holds what it says
    loaded = fapm.load(tmp_path / "part.fapm")
    one, other = (d.fitted_.preparation.stage("flat_field") for d in (ours, loaded))
    assert isinstance(one, FlatField)
    assert isinstance(other, FlatField)
    np.testing.assert_array_equal(one.field, other.field)
    assert one.shape == other.shape
    pictures = [shaded(stripes.defective(7)), shaded(stripes.good(50))]
    np.testing.assert_array_equal(ours.score(pictures), loaded.score(pictures))
    loaded.save(tmp_path / "again.fapm")
    assert (tmp_path / "again.fapm").read_bytes() == (tmp_path / "part.fapm").read_bytes()
    # More pictures pass the same field, which is not learned again.
    loaded.update([shaded(stripes.good(90))])
    grown = loaded.fitted_.preparation.stage("flat_field")
    assert isinstance(grown, FlatField)
    np.testing.assert_array_equal(grown.field, one.field)
    assert loaded.fitted_.history[-1].warnings == ()
    assert loaded.predict(shaded(stripes.good(50))).verdict == "good"


FORGERIES: dict[str, Callable[[Forgery], Any]] = {
    "no field": lambda f: f.memory.pop("flat_field.field"),
    "no stage": lambda f: f.manifest["stages"].pop("flat_field"),
    "a stage of nothing, and a field nobody refers to": lambda f: f.manifest.update(stages={}),
    "a config without": lambda f: f.manifest["config"].update(flat_field=None),
    "a grey field": lambda f: f.memory.update(
        {"flat_field.field": f.memory["flat_field.field"][..., 0]}
    ),
    "a field of doubles": lambda f: f.memory.update(
        {"flat_field.field": f.memory["flat_field.field"].double()}
    ),
    "an empty field": lambda f: f.memory.update(
        {"flat_field.field": f.memory["flat_field.field"][:0]}
    ),
    "a field of no numbers": lambda f: f.memory["flat_field.field"].fill_(math.nan),
    "a field beyond all light": lambda f: f.memory["flat_field.field"].fill_(math.inf),
    "a field below dark": lambda f: f.memory["flat_field.field"].fill_(-1.0),
    "a large field": lambda f: f.memory.update(
        {"flat_field.field": f.memory["flat_field.field"].repeat(3, 1, 1)}
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_field_is_refused(
    forgery: str, pair: tuple[Detector, Detector], tmp_path: Path
) -> None:
    path = tmp_path / "part.fapm"
    pair[1].save(path)
    forged = Forgery(path)
    FORGERIES[forgery](forged)
    forged.write(path)
    with pytest.raises(BundleError, match="not a usable bundle") as caught:
        fapm.load(path)
    assert "\n" not in str(caught.value)


# Pictures that are no field


@pytest.mark.parametrize(
    ("grey", "told"),
    [((0, 0, 0), "0 to 0"), ((12, 12, 12), "12 to 12"), ((255, 255, 255), "255 to 255"),
     ((252, 200, 200), "200 to 252"), ((200, 200, 9), "9 to 200")],
    ids=["black", "too dark", "white", "one channel overexposed", "one channel too dark"],
)  # fmt: skip
def test_a_field_that_shows_no_light_is_refused(
    grey: tuple[int, ...], told: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "s.png", np.full((EDGE, EDGE, 3), grey, np.uint8))
    with pytest.raises(ConfigError) as caught:
        stripes.fitted(stripes.good_pictures(3), flat_field=path)
    assert str(caught.value) == (
        f"flat_field: {path}: its mean grey level is {told}, and 16 to 250 is needed; take a "
        "picture of a plain surface, neither dark nor overexposed"
    )


def test_a_field_of_another_shape_is_refused_where_frames_keep_theirs(tmp_path: Path) -> None:
    path = write(tmp_path / "s.png", surface(64, 64))
    pictures = [stripes.good(n, 64, 96) for n in range(4)]
    for frames in ({"keep_aspect": True, "resize": 64}, {"tile": 64}):
        with pytest.raises(
            FapmError, match=rf"^flat_field: {re.escape(path)}: 64 x 64 pixels, "
        ) as e:
            Detector(Config.create(**frames, flat_field=path)).fit(pictures)
        assert "\n" not in str(e.value)
    # A larger picture of the same shape will do.
    larger = write(tmp_path / "l.png", surface(128, 192))
    Detector(Config.create(keep_aspect=True, resize=64, flat_field=larger)).fit(pictures)


def test_a_field_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"")
    for name, reason in (("none.png", "no such file"), ("broken.png", "empty")):
        with pytest.raises(ImageError, match=reason) as caught:
            stripes.fitted(stripes.good_pictures(3), flat_field=str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


# The command line


def test_the_command_line_from_fit_to_update(
    run: Command, refusal: Refusal, field: str, tmp_path: Path
) -> None:
    for number in range(8):
        parts.save(tmp_path / "good" / f"{number}.png", shaded(parts.part(number)))
    new = tmp_path / "new"
    parts.save(new / "bad.png", shaded(parts.part(100, hole=True)))
    parts.save(new / "fine.png", shaded(parts.part(101)))
    more = parts.save(tmp_path / "more" / "9.png", shaded(parts.part(9)))
    model = tmp_path / "part.fapm"
    options = ("--resize", EDGE, "--flat-field", field)
    assert run("fit", tmp_path / "good", "--output", model, *options).code == 0
    assert read_archive(model)[0]["stages"] == {"flat_field": {}}
    said = run("inspect", new, "--model", model)
    assert said.code == 0, said.err
    assert [line.split()[0] for line in said.out.splitlines()] == ["defect", "good"]
    assert run("update", model, more.parent).code == 0
    assert "9.png" in fapm.load(model).fitted_.pictures
    assert run("inspect", new, "--model", model).out.splitlines()[0].startswith("defect")
    assert refusal("export", model, tmp_path / "out").startswith("flat_field: export writes the ")
    wanted = ("fit", tmp_path / "good", "--output", tmp_path / "x.fapm", "--resize", EDGE)
    line = refusal(*wanted, "--flat-field", tmp_path / "none.png")
    assert line == f"{tmp_path / 'none.png'}: no such file; check the path"
    assert not (tmp_path / "x.fapm").exists()
