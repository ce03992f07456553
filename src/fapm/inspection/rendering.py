"""Anomaly maps as 8-bit pictures, on one scale for all pictures of a detector."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SATURATION = 2.0  # times the threshold; above this the shade or colour no longer changes


class RenderedMap(NamedTuple):
    """An anomaly map as a grey picture, and its scale.

    Attributes
    ----------
    pixels
        uint8 ``[h, w]``.
    black, white
        values of the map that are shown as 0 and as 255; larger values are 255 too. Between them
        the shade is proportional.
    """

    pixels: NDArray[np.uint8]
    black: float
    white: float


def full_scale(anomaly_map: NDArray[np.float32], threshold: float) -> float:
    """The value at which the scale of a map ends: twice the threshold.

    Without a threshold (NaN) it is the map's own maximum. It is never 0.
    """
    top = float(anomaly_map.max()) if math.isnan(threshold) else SATURATION * threshold
    return max(top, float(np.finfo(np.float32).tiny))


def render_map(anomaly_map: NDArray[np.float32], threshold: float) -> RenderedMap:
    """Render a map, float32 ``[h, w]``, with the level above which it shows a defect."""
    white = full_scale(anomaly_map, threshold)
    # Clipped before the division, which could overflow.
    share = np.clip(anomaly_map, 0, white) / np.float32(white)
    pixels = cv2.convertScaleAbs(share, alpha=255)  # rounds
    return RenderedMap(np.asarray(pixels, np.uint8), 0.0, white)
