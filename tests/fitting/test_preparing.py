"""What a fit decides by a sample of its pictures, each of which is decoded once for that."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import parts
from fapm import Detector
from fapm.config import Config
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from fapm.fitting import preparing
from fapm.fitting.preparing import prepare
from fapm.frames.flatfield import FlatField
from fapm.frames.layout import layout_of
from fapm.frames.light import Light
from fapm.frames.roi import EVERYTHING, Regions
from fapm.pictures import codec

LARGE = 10**6


def plate(seed: int) -> NDArray[np.uint8]:
    """A textured part on a plain background."""
    picture = np.full((96, 96, 3), 20, np.uint8)
    picture[16:80, 16:80] = parts.part(seed)
    return picture


@pytest.fixture
def plates(tmp_path: Path) -> list[Path]:
    return [parts.save(tmp_path / "good" / f"{n:02d}.png", plate(n)) for n in range(10)]


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each picture has been decoded."""
    counted: Counter[str] = Counter()
    decode = codec.read

    def read(picture: object, **how: Any) -> codec.Decoded:
        counted[Path(str(picture)).name] += 1
        return decode(picture, **how)

    monkeypatch.setattr(codec, "read", read)
    return counted


DECISIONS: dict[str, tuple[dict[str, Any], str | None]] = {
    "nothing": ({}, None),
    "light": ({"light": "gain"}, None),
    "light and align": ({"light": "gain", "align": "auto"}, "auto"),
    "copies": ({"light": "gain", "rotations": 2, "augment": 1, "robust": True}, "auto"),
    "tiles": ({"tile": 64, "light": "gain"}, "auto"),
}


@pytest.mark.parametrize("decided", DECISIONS)
def test_a_picture_is_decoded_at_most_twice(
    decided: str, plates: list[Path], decodes: Counter[str]
) -> None:
    fields, roi = DECISIONS[decided]
    frames = {} if "tile" in fields else {"resize": 64}
    Detector(Config.create(**frames, **fields)).fit(plates, roi=roi)
    assert set(decodes) == {path.name for path in plates}
    assert set(decodes.values()) == {1 if decided == "nothing" else 2}


@pytest.mark.skipif(find_spec("nncf") is None, reason="needs NNCF")
def test_a_picture_is_decoded_at_most_twice_whatever_is_decided(
    plates: list[Path], decodes: Counter[str]
) -> None:
    config = Config.create(
        encoder="mobilenetv3_small_050",
        weights="random",
        layers=("bn1", "blocks.0"),
        resize=64,
        light="gain",
        align="auto",
        precision="auto",
    )
    detector = Detector(config).fit(plates, roi="auto")
    assert set(decodes.values()) == {2}
    notes = " ".join(detector.notes_)
    assert "align " in notes
    assert "roi auto: the part " in notes


def test_of_many_pictures_a_sample_is_decoded_twice(
    plates: list[Path], decodes: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_FEW", 4)
    Detector(Config.create(resize=64, light="gain")).fit(plates, roi="auto")
    assert set(decodes) == {path.name for path in plates}
    assert Counter(decodes.values()) == {1: 6, 2: 4}


def prepared(pictures: list[Any], regions: Regions = EVERYTHING, **fields: Any) -> Any:
    config = Config.create(resize=64, weights="random", **fields)
    return prepare(
        pictures, config, create_encoder(config), Runtime(),
        layout=layout_of(config), regions=regions, max_pixels=LARGE,
    )  # fmt: skip


def test_every_stage_is_learned_from_what_the_stages_before_have_left(tmp_path: Path) -> None:
    surface = np.full((96, 96, 3), 200, np.uint8)
    surface[:, :48] = 100
    Image.fromarray(surface).save(tmp_path / "surface.png")
    shaded = [(plate(n) * (surface / 200)).round().astype(np.uint8) for n in range(8)]
    flat, light = prepared(
        shaded, flat_field=str(tmp_path / "surface.png"), light="gain"
    ).preparation.stages
    assert isinstance(flat, FlatField)
    assert isinstance(light, Light)
    (alone,) = prepared(shaded, light="gain").preparation.stages
    even = [flat.apply(layout_of(Config.create(resize=64)).frame(p, "bicubic"))[0] for p in shaded]
    (expected,) = prepared(even, light="gain").preparation.stages
    assert light == expected
    assert alone != expected


def test_a_region_is_learned_from_finished_frames() -> None:
    """Where a part lies in the template, not where it lies in each picture."""
    moved = [np.roll(plate(n), shift, axis=1) for n, shift in enumerate([-12, 0, 12] * 4)]
    auto = Regions("auto")
    anyhow = prepared(moved, auto).preparation.roi
    placed = prepared(moved, auto, align="shift").preparation.roi
    assert anyhow is not None
    assert placed is not None
    assert placed.inside.mean() < 0.9 * anyhow.inside.mean()


def test_what_cannot_be_read_is_no_part_of_the_sample(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"")
    found = prepared([tmp_path / "broken.png", *(plate(n) for n in range(3))], light="gain")
    assert found.preparation == prepared([plate(n) for n in range(3)], light="gain").preparation
