"""Frames are made as bright as the good ones, and defects stay defects."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fapm
import parts
import stripes
from conftest import Command, Refusal
from fapm import Detector
from fapm.bundle.archive import read_archive, write_archive
from fapm.engines.base import Runtime
from fapm.errors import BundleError
from fapm.frames.light import MOST, Light, quantile, relit
from fapm.frames.preparation import Frame, Preparation
from fapm.inspection.drift import DriftMonitor
from forgery import Forgery
from framing import learn_light as learn
from framing import square

Picture = NDArray[np.uint8]


def lit(picture: Picture, gain: float) -> Picture:
    """What the camera shows of it under more or less light."""
    return (picture * gain).round().clip(0, 255).astype(np.uint8)


def normalised(frame: Picture, light: Light) -> Picture:
    return relit(frame, light.table(frame))


def reference_level(frame: Picture, share: float = 0.5) -> float:
    """Quantile of grey (ITU-R BT.601), each grey level spread evenly over its unit."""
    values = np.sort(np.floor(frame.astype(np.float64) @ [0.299, 0.587, 0.114] + 0.5).ravel())
    here = values[int(np.ceil(share * len(values))) - 1]
    below, equal = (values < here).sum(), (values == here).sum()
    return float(here - 0.5 + (share * len(values) - below) / equal)


@st.composite
def frames(draw: st.DrawFn) -> Picture:
    """Frames of no more than 180: twenty percent more light does not clip them."""
    seed, low, high = draw(st.integers(0, 2**32 - 1)), draw(st.integers(20, 80)), draw(
        st.integers(90, 180)
    )  # fmt: skip
    channels = draw(st.sampled_from([1, 3]))
    rng = np.random.default_rng(seed)
    picture = rng.integers(low, high + 1, (32, 32, channels)).repeat(3 // channels, axis=2)
    return picture.astype(np.uint8)


@settings(max_examples=50, deadline=None)
@given(
    frame=frames(), target=st.floats(20, 200), white=st.floats(0, 249), share=st.floats(0.1, 0.9)
)
def test_a_frame_is_what_the_definition_says(
    frame: Picture, target: float, white: float, share: float
) -> None:
    level = reference_level(frame, share)
    assert quantile(frame, share) == pytest.approx(level, abs=0.6)
    gain = np.clip(target / level, 1 / 3, 3)
    values = frame.astype(np.float64)
    expected = gain * values
    if 255 * gain < white:
        along = (values - 230) / 25
        steep = 230 * gain + along * (white - 230 * gain)
        expected = np.where(values > 230, steep, expected)
    found = normalised(frame, Light(target, white, share)).astype(np.float64)
    off = 0.6 + 0.02 * expected  # rounding of the result, and of the level
    assert (np.abs(found - expected.clip(0, 255)) <= off).all()


@settings(max_examples=50, deadline=None)
@given(frame=frames(), gain=st.floats(0.6, 1.25), target=st.floats(50, 95))
def test_more_or_less_light_gives_the_same_frame(
    frame: Picture, gain: float, target: float
) -> None:
    light = Light(target, 0.0)
    ours, theirs = normalised(frame, light), normalised(lit(frame, gain), light)
    factor = target / quantile(frame, 0.5)
    # Half a level at the camera and half here; the median is of rounded levels too.
    off = 1 + 0.5 * factor / gain + 1.5 / min(gain, 1) / quantile(frame, 0.5) * ours.astype(float)
    assert (np.abs(ours.astype(float) - theirs) <= off).all()


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.floats(0, 300),
    middle=st.floats(0, 255),
    target=st.floats(1, 255),
    white=st.floats(0, 255),
)
def test_brighter_stays_brighter(
    seed: int, spread: float, middle: float, target: float, white: float
) -> None:
    """Whatever the frame, black stays black and no two grey levels change places."""
    noise = np.random.default_rng(seed).normal(middle, spread, (16, 16, 3))
    table = Light(target, white).table(noise.clip(0, 255).astype(np.uint8)).astype(int)
    assert table[0] == 0
    assert (np.diff(table) >= 0).all()
    assert (np.abs(table - (np.arange(256) * MOST)) <= 255 * MOST).all()


def test_a_white_background_stays_white_in_too_much_light() -> None:
    """It was clipped: how bright it is now nobody knows, so it is as it always was."""
    part = np.full((32, 32, 3), 255, np.uint8)
    part[4:28, 4:28] = 80
    light = learn([part])
    assert light is not None
    assert light.white == 255
    assert light.level == pytest.approx(80, abs=0.5)
    np.testing.assert_allclose(normalised(lit(part, 1.3), light), part, atol=1)
    np.testing.assert_allclose(normalised(lit(part, 0.7), light), part, atol=1)


@pytest.mark.parametrize("gain", [0.5, 0.7, 0.9])
def test_a_white_background_is_white_again_in_too_little_light(gain: float) -> None:
    """Even where the part is a bit brighter than others, so that its gain is too small for it."""
    part, brighter = (np.full((32, 32, 3), 255, np.uint8) for _ in range(2))
    part[4:28, 4:28], brighter[4:28, 4:28] = 80, 84
    light = learn([part])
    assert light is not None
    found = normalised(lit(brighter, gain), light)
    assert (found[:4] == 255).all()
    np.testing.assert_allclose(found[8:24, 8:24].astype(int), 80, atol=2)


@pytest.mark.parametrize(("ground", "gains"), [(3, (0.6, 1.4)), (255, (0.6, 0.9, 1.1))])
def test_the_light_is_measured_on_the_part_if_the_ground_is_black_or_white(
    ground: int, gains: tuple[float, ...]
) -> None:
    part = np.full((64, 64, 3), ground, np.uint8)
    part[16:48, 8:56] = stripes.good(0)[16:48, 8:56]  # three eighths of the frame
    light = learn([part])
    assert light is not None
    assert 16 <= light.level <= 230
    for gain in gains:
        found = normalised(lit(part, gain), light)
        assert np.abs(found.astype(float) - part).mean() < 2


@pytest.mark.parametrize("grey", [0, 255])
def test_a_frame_of_one_grey_is_not_a_number_out_of_range(grey: int) -> None:
    frame = np.full((16, 16, 3), grey, np.uint8)
    for light in (learn([frame]), Light(100.0, 200.0)):
        assert light is not None
        assert light.level >= 1
        assert normalised(frame, light).dtype == np.uint8
    assert normalised(np.zeros_like(frame), Light(100.0, 200.0)).max() == 0


def test_light_is_learned_from_pictures_or_not_at_all() -> None:
    dark, usual, bright = (np.full((8, 8, 3), g, np.uint8) for g in (10, 100, 250))
    found = learn([bright, usual, dark])
    assert found is not None
    assert found.level == pytest.approx(100, abs=0.5)


# From fit to verdict


@pytest.fixture(scope="module")
def pair() -> tuple[Detector, Detector]:
    """Fitted without and with it."""
    return (
        stripes.fitted(stripes.good_pictures()),
        stripes.fitted(stripes.good_pictures(), light="gain"),
    )


@pytest.mark.parametrize("gain", [0.4, 0.7, 1.4])
def test_good_parts_stay_good_in_another_light(
    pair: tuple[Detector, Detector], gain: float
) -> None:
    plain, helped = pair
    usual = [stripes.good(seed) for seed in range(100, 106)]
    dim = [lit(picture, gain) for picture in usual]
    assert {p.verdict for p in helped.predict(dim)} == {"good"}
    changed = [np.median(d.score(dim) / d.score(usual)) for d in pair]
    assert changed[0] > 1.1
    assert abs(changed[1] - 1) < (changed[0] - 1) / 3
    if gain != 0.7:
        assert "good" not in {p.verdict for p in plain.predict(dim)}


@pytest.mark.parametrize("gain", [0.6, 1.0, 1.2])
@pytest.mark.parametrize("change", [-50, 50, 90])
def test_a_place_that_is_darker_or_brighter_is_a_defect(
    pair: tuple[Detector, Detector], gain: float, change: int
) -> None:
    picture = stripes.good(100).astype(int)
    picture[stripes.DEFECT] += change
    bad = lit(picture.clip(0, 255).astype(np.uint8), gain)
    found = pair[1].predict(bad)
    assert found.verdict == "defect"
    row, column = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
    assert 36 <= row < 60
    assert 4 <= column < 28


def test_a_part_that_is_all_black_is_a_defect(pair: tuple[Detector, Detector]) -> None:
    assert pair[1].predict(lit(stripes.good(100), 0.05)).verdict == "defect"


def test_it_survives_the_bundle(pair: tuple[Detector, Detector], tmp_path: Path) -> None:
    ours = pair[1]
    ours.save(tmp_path / "part.fapm")
    loaded = fapm.load(tmp_path / "part.fapm")
    light = ours.fitted_.preparation.stage("light")
    assert light is not None
    assert loaded.fitted_.preparation.stage("light") == light
    pictures = [lit(stripes.defective(7), 0.7), lit(stripes.good(50), 1.1)]
    np.testing.assert_array_equal(ours.score(pictures), loaded.score(pictures))
    loaded.save(tmp_path / "again.fapm")
    assert (tmp_path / "again.fapm").read_bytes() == (tmp_path / "part.fapm").read_bytes()


def test_a_bundle_from_before_is_read(bundle: Path, tmp_path: Path) -> None:
    manifest, contents = read_archive(bundle)
    assert manifest["stages"] == {}
    del manifest["config"]["light"]
    write_archive(tmp_path / "old.fapm", manifest, contents)
    old = fapm.load(tmp_path / "old.fapm")
    assert old.fitted_.preparation.stage("light") is None
    assert old.score(stripes.defective(3)) == fapm.load(bundle).score(stripes.defective(3))


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no light": lambda m: m["stages"].update(light=None),
    "no word of it": lambda m: m["stages"].pop("light"),
    "no word of any stage": lambda m: m.pop("stages"),
    "a number in its place": lambda m: m["stages"].update(light=1.0),
    "a config without": lambda m: m["config"].update(light="none"),
    "no level": lambda m: m["stages"]["light"].pop("level"),
    "a level of text": lambda m: m["stages"]["light"].update(level="bright"),
    "a level of nothing": lambda m: m["stages"]["light"].update(level=0.0),
    "a level beyond grey": lambda m: m["stages"]["light"].update(level=1e9),
    "a white below black": lambda m: m["stages"]["light"].update(white=-1.0),
    "a share of everything": lambda m: m["stages"]["light"].update(share=1.0),
    "a true white": lambda m: m["stages"]["light"].update(white=True),
    "more than there is": lambda m: m["stages"]["light"].update(colour=1.0),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_light_is_refused(
    forgery: str, pair: tuple[Detector, Detector], tmp_path: Path
) -> None:
    path = tmp_path / "part.fapm"
    pair[1].save(path)
    forged = Forgery(path)
    FORGERIES[forgery](forged.manifest)
    forged.write(path)
    with pytest.raises(BundleError, match="not a usable bundle") as caught:
        fapm.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_every_engine_sees_the_same_frames(
    engine: str, pair: tuple[Detector, Detector], tmp_path: Path
) -> None:
    pair[1].save(tmp_path / "part.fapm")
    other = fapm.load(tmp_path / "part.fapm", runtime=Runtime(engine=engine))  # type: ignore[arg-type]
    pictures = [lit(stripes.defective(7), 0.7), lit(stripes.good(50), 1.1)]
    np.testing.assert_allclose(other.score(pictures), pair[1].score(pictures), rtol=1e-3)


def test_drift_still_sees_that_the_lamp_ages(pair: tuple[Detector, Detector]) -> None:
    helped = pair[1]
    assert helped.fitted_.baseline is not None
    monitor = DriftMonitor(helped.fitted_.baseline)
    usual = [stripes.good(seed) for seed in range(100, 120)]
    for _ in helped.stream(usual, drift=monitor):
        assert not monitor.state.alarm
    for prediction in helped.stream([lit(p, 0.7) for p in usual * 2], drift=monitor):
        assert isinstance(prediction, fapm.Prediction)
        assert prediction.verdict != "defect"
    assert monitor.state.alarm
    assert monitor.state.cause == "light"


@pytest.mark.parametrize("more", [{"align": "shift"}, {"rotations": 4}, {"augment": 2}], ids=str)
def test_it_goes_with_what_else_is_done_to_frames(more: dict[str, Any]) -> None:
    detector = stripes.fitted(stripes.good_pictures(), light="gain", **more)
    dim = [lit(stripes.good(100), 0.7), lit(stripes.defective(100), 0.7)]
    assert [p.verdict == "defect" for p in detector.predict(dim)] == [False, True]


def test_it_goes_with_a_region_and_learns_on(tmp_path: Path) -> None:
    region = np.zeros((64, 64), bool)
    region[:, :32] = True
    good = stripes.good_pictures()
    detector = fapm.fit(good, resize=64, light="gain", roi=region)
    dim = [lit(stripes.good(100), 0.7), lit(stripes.defective(100), 0.7)]
    assert [p.verdict == "defect" for p in detector.predict(dim)] == [False, True]
    grown = stripes.fitted(good[:8], light="gain")
    before = grown.fitted_.preparation.stage("light")
    grown.update([lit(picture, 0.6) for picture in good[8:]])
    assert grown.fitted_.preparation.stage("light") == before
    # Pictures in another light are learned as the same part, not as another.
    assert grown.fitted_.history[-1].warnings == ()
    grown.forget(grown.fitted_.pictures[0])
    assert grown.fitted_.preparation.stage("light") == before


def test_turned_frames_are_as_bright_as_the_picture() -> None:
    """They show less of a bright surround: by themselves they would be brightened for it."""
    preparation = Preparation(square(64), "bicubic", (Light(60.0, 255.0),))
    found = preparation.read(parts.part(0), max_pixels=10**6, turns=4)
    assert isinstance(found, Frame)
    assert len(found.turned) == 3
    for turned in found.turned:
        assert turned.mean() == pytest.approx(found.pixels.mean(), rel=0.05)


# The command line


def test_the_command_line_from_fit_to_verdict(run: Command, washers: Path, tmp_path: Path) -> None:
    model = tmp_path / "part.fapm"
    options = ("--resize", 64, "--light", "gain")
    assert run("fit", washers / "train" / "good", "--output", model, *options).code == 0
    described = read_archive(model)[0]["stages"]["light"]
    assert 50 < described["level"] < 200
    for number in range(3):
        parts.save(tmp_path / "dim" / f"{number}.png", lit(parts.part(100 + number), 0.6))
    said = run("inspect", tmp_path / "dim", "--model", model, "--fail-on-defect")
    assert said.code == 0, said.out + said.err
    judged = run("evaluate", washers, *options)
    assert judged.code == 0, judged.err
    timed = run("benchmark", *options, "--pictures", 6, "--rounds", 2, "--json", "-", "--quiet")
    assert json.loads(timed.out)["light_ms"] > 0


def test_an_audit_is_not_about_the_light(run: Command, tmp_path: Path) -> None:
    folder = parts.make_folder(tmp_path / "good", 12)
    parts.save(folder / "005.png", lit(parts.part(5), 0.6))
    parts.save(folder / "007.png", parts.part(7, hole=True))

    def first_two(*options: str) -> set[str]:
        table = tmp_path / "audit.csv"
        assert run("audit", folder, "--resize", 64, "--csv", table, *options).code == 0
        return {line.split(",")[1] for line in table.read_text().splitlines()[1:3]}

    assert any("005" in name for name in first_two())
    helped = first_two("--light", "gain")
    assert any("007" in name for name in helped)
    assert not any("005" in name for name in helped)


def test_what_cannot_do_it_says_so(refusal: Refusal, good: Path, tmp_path: Path) -> None:
    said = refusal("fit", good, "--output", tmp_path / "p.fapm", "--light", "bright")
    assert said == "light: 'bright' is not valid, it should be 'none' or 'gain'"
    model = tmp_path / "part.fapm"
    fapm.fit(good, resize=64, light="gain").save(model)
    assert refusal("export", model, tmp_path / "out") == (
        "light: export writes the graph, which begins at the finished frame; leave it out and fit "
        "again"
    )
    assert math.isfinite(fapm.load(model).threshold_)
