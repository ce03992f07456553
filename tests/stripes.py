"""Small striped pictures of a part, with a bright square as its defect, and detectors of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fapm import Detector
from fapm.config import Config

Picture = NDArray[np.uint8]

CONFIG = Config.create(resize=64)
COUNT = 12
DEFECT = slice(40, 56), slice(8, 24)  # rows and columns, in a picture of 64 x 64


def good(seed: int, height: int = 64, width: int = 64) -> Picture:
    """A striped part under its own noise."""
    y, x = np.mgrid[:height, :width]
    stripes = 110 + 40 * np.sin(x / 3) + 30 * np.cos(y / 5)
    noise = np.random.default_rng(seed).normal(scale=10, size=(height, width, 3))
    return np.clip(stripes[:, :, None] + noise, 0, 255).astype(np.uint8)


def defective(seed: int, height: int = 64, width: int = 64) -> Picture:
    picture = good(seed, height, width)
    rows, columns = DEFECT
    picture[
        rows.start * height // 64 : rows.stop * height // 64,
        columns.start * width // 64 : columns.stop * width // 64,
    ] = 255
    return picture


def good_pictures(count: int = COUNT) -> list[Picture]:
    return [good(seed) for seed in range(count)]


def fitted(source: object, **overrides: Any) -> Detector:
    return Detector(Config.create(resize=64, **overrides)).fit(source)


def keys_of(detector: Detector) -> list[NDArray[np.float32]]:
    return [bank.keys for bank in detector.fitted_.banks]


def bundle_bytes(detector: Detector, path: Path) -> bytes:
    detector.save(path)
    return path.read_bytes()
