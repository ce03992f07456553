"""Good pictures that show nothing are remarked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fapm
import parts
from conftest import Command


def notes(pictures: object) -> str:
    return "\n".join(fapm.fit(pictures, resize=64).notes_)


def test_alpha_that_nobody_set_is_ignored_and_remarked() -> None:
    clear = [np.dstack([parts.part(i), np.zeros((64, 64), np.uint8)]) for i in range(4)]
    opaque = [parts.part(i) for i in range(4)]
    found, expected = fapm.fit(clear, resize=64), fapm.fit(opaque, resize=64)
    assert found.threshold_ == expected.threshold_
    assert "4 pictures of 4: transparent everywhere; taken without the alpha channel" in notes(
        clear
    )
    assert "alpha" not in notes(opaque)


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_of_one_colour_are_remarked(count: int) -> None:
    dark = [np.full((64, 64, 3), i, np.uint8) for i in range(count)]
    assert "of one colour show nothing to learn" in notes(dark)


def test_some_pictures_of_one_colour_are_remarked() -> None:
    mixed = [parts.part(0), parts.part(1), np.zeros((64, 64, 3), np.uint8)]
    assert "nothing but one colour in 1 picture of 3" in notes(mixed)


def test_the_same_picture_again_and_again_is_remarked() -> None:
    assert "all 3 pictures look the same" in notes([parts.part(0)] * 3)
    assert "look the same" not in notes([parts.part(0), parts.part(1)])


def test_an_update_with_dark_pictures_warns() -> None:
    detector = fapm.fit([parts.part(i) for i in range(6)], resize=64)
    detector.update([np.zeros((64, 64, 3), np.uint8)], force=True)
    assert "much of what is inspected is far from normal" in "\n".join(detector.notes_)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_bits_that_are_not_shifted_are_remarked(run: Command, tmp_path: Path, bits: int) -> None:
    for number in range(3):
        grey = parts.part(number)[..., 0].astype(np.uint16)
        values = grey << (bits - 8) if bits > 8 else grey
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    finished = run("fit", tmp_path, "--output", tmp_path / "x.fapm", "--resize", 64)
    assert finished.code == 0
    if bits == 16:
        assert "bits in 16" not in finished.err
    else:
        assert f"they look like {bits} bits in 16; shift them {16 - bits} bits" in finished.err
