"""Little parts that look alike, some with a hole: data sets for tests that need real files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

EDGE = 64
HOLE = np.s_[20:40, 24:44]


def part(number: int, *, hole: bool = False) -> NDArray[np.uint8]:
    """A textured part, uint8 ``[64, 64, 3]``; each number has noise of its own."""
    texture = np.random.default_rng(0).normal(120, 60, (EDGE, EDGE, 3))
    noise = np.random.default_rng(1 + number).normal(0, 4, texture.shape)
    picture = cv2.GaussianBlur(texture, (5, 5), 1.5) + noise
    if hole:
        picture[HOLE] = 250
    return picture.clip(0, 255).astype(np.uint8)


def save(path: Path, picture: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def make_folder(root: Path, count: int = 12) -> Path:
    """Good parts in one folder."""
    for number in range(count):
        save(root / f"{number:03d}.png", part(number))
    return root


def make_mvtec(root: Path, *, masks: bool = True) -> Path:
    """12 good parts to fit on; 3 good ones and 3 with a hole to judge."""
    make_folder(root / "train" / "good")
    mask = np.zeros((EDGE, EDGE), np.uint8)
    mask[HOLE] = 255
    for number in range(3):
        save(root / "test" / "good" / f"{number:03d}.png", part(100 + number))
        save(root / "test" / "hole" / f"{number:03d}.png", part(200 + number, hole=True))
        if masks:
            save(root / "ground_truth" / "hole" / f"{number:03d}_mask.png", mask)
    return root
