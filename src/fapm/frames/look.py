"""The look of a frame, in a few numbers from which drift is measured. No torch here."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

# Drift is watched on 7 x 7 patches, whatever grid the memory has.
GRID = 7
PATCHES = GRID * GRID
SMALL = 64  # pixels of the edge of a small grey frame


class Look(NamedTuple):
    """A frame, small.

    Attributes
    ----------
    grey
        uint8 ``[64, 64]``.
    detail
        float32 ``[49]``, mean absolute Laplacian of the grey frame per patch: what blur and dirt
        take away.
    """

    grey: NDArray[np.uint8]
    detail: NDArray[np.float32]


def look(frame: NDArray[np.uint8]) -> Look:
    """Measure the look of a frame, RGB uint8 ``[S, S, 3]``."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    laplacian = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    small = cv2.resize(grey, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    return Look(np.asarray(small, np.uint8), patch_means(laplacian))


def patch_means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 7 x 7 patches of a map, float32 ``[H, W]`` to ``[49]``, row-major."""
    means = cv2.resize(values, (GRID, GRID), interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.float32).ravel()
