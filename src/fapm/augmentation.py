"""Copies of a picture as the line might have taken it: for fits on few pictures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Largest shift as a share of each edge, turn in degrees, and change of brightness and contrast.
_SHIFT = 0.02
_TURN = 2.0
_LIGHT = 0.06


def augmented(
    pixels: NDArray[np.uint8], count: int, seed: tuple[int, ...]
) -> list[NDArray[np.uint8]]:
    """``count`` copies, lightly shifted, turned and lit anew; the same for the same seed.

    What comes in from outside the frame is mirrored.

    Parameters
    ----------
    pixels
        RGB uint8 ``[h, w, 3]``.
    """
    height, width = pixels.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    rng = np.random.default_rng(seed)
    copies = []
    for _ in range(count):
        turn = cv2.getRotationMatrix2D(centre, rng.uniform(-_TURN, _TURN), 1.0)
        matrix = np.asarray(turn, np.float64)
        matrix[:, 2] += rng.uniform(-_SHIFT, _SHIFT, 2) * (width, height)
        moved = cv2.warpAffine(
            pixels,
            matrix,
            (width, height),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        contrast, brightness = 1 + rng.uniform(-_LIGHT, _LIGHT, 2)
        mean = float(moved.mean())
        lit = (moved - mean) * contrast + mean * brightness
        copies.append(lit.round().clip(0, 255).astype(np.uint8))
    return copies
