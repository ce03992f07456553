"""What the detector says of one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fapm.calibration import Verdict
from fapm.images import restore_map


class Box(NamedTuple):
    """A rectangle in a picture, in fractions ``0 .. 1`` of its width and height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Region:
    """A connected region of the anomaly map above the threshold, in pixels of the picture.

    Attributes
    ----------
    x, y, width, height
        bounding box.
    area
        pixels.
    peak
        largest value of the anomaly map inside.
    contour
        outline, int32 ``[n, 2]`` of ``x, y``.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float
    contour: NDArray[np.int32]


@dataclass(frozen=True)
class Comparison:
    """What the worst cell was compared with: the nearest key of its patch.

    Attributes
    ----------
    picture
        name of the training picture that the key came from.
    distance
        to that key, in distance units.
    layer
        the layer that found the cell farthest from normal.
    here, there
        the cell in the inspected picture, and the key's cell in the training picture.
    thumbnail
        JPEG of the training picture, if the bundle carries it.
    """

    picture: str
    distance: float
    layer: str
    here: Box
    there: Box
    thumbnail: bytes | None


@dataclass(frozen=True)
class Failure:
    """A picture that could not be inspected, and why, in one line."""

    source: str
    error: str


@dataclass(frozen=True)
class Prediction:
    """What the detector says of one picture.

    Attributes
    ----------
    source
        path, or ``array``.
    score
        raw image score, not clamped; larger is more anomalous.
    percentile
        share of the normal pictures that score lower, ``0 .. 100``; NaN if there was just one.
    verdict
        ``good``, ``unsure`` or ``defect``.
    threshold, map_threshold
        the levels above which a score, a cell of the map, is a defect.
    frame_map
        anomaly map of the frame, float32 ``[h, w]``.
    height, width
        of the picture, in pixels.
    comparison
        what the worst cell was compared with.
    roi
        what was inspected of the frame, bool ``[h, w]``; None: everything.
    reason
        why the verdict is ``unsure`` whatever the score: the part was not found in the picture, or
        too little of it; None otherwise.
    """

    source: str
    score: float
    percentile: float
    verdict: Verdict
    threshold: float
    map_threshold: float
    frame_map: NDArray[np.float32]
    height: int
    width: int
    resize: int
    crop: int | None
    comparison: Comparison
    roi: NDArray[np.bool_] | None = None
    reason: str | None = None

    @property
    def inspected(self) -> NDArray[np.bool_] | None:
        """What of the picture was inspected, bool ``[H, W]``; None: everything."""
        if self.roi is None:
            return None
        roi = self.roi.astype(np.float32)
        restored = restore_map(roi, self.height, self.width, self.resize, self.crop)
        return np.asarray(restored >= 0.5)

    @property
    def anomaly_map(self) -> NDArray[np.float32]:
        """Anomaly map in the picture's own geometry, float32 ``[H, W]``, raw.

        0 outside a centre crop, where the encoder saw nothing, and outside the region of interest.
        Made anew at each access: thousands of predictions of large pictures can be kept.
        """
        restored = restore_map(self.frame_map, self.height, self.width, self.resize, self.crop)
        inspected = self.inspected
        if inspected is not None:
            restored[~inspected] = 0
        return restored

    @property
    def regions(self) -> tuple[Region, ...]:
        """Where the anomaly map is above its threshold; the region with the highest peak first."""
        anomaly_map = self.anomaly_map
        above = (anomaly_map > self.map_threshold).astype(np.uint8)
        count, numbers, boxes, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
        regions = []
        for number in range(1, count):
            x, y, width, height, area = map(int, boxes[number])
            window = np.s_[y : y + height, x : x + width]
            inside = numbers[window] == number
            outlines, _ = cv2.findContours(
                inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
            )
            peak = float(anomaly_map[window][inside].max())
            outline = outlines[0].reshape(-1, 2).astype(np.int32)
            regions.append(Region(x, y, width, height, area, peak, outline))
        return tuple(sorted(regions, key=lambda region: -region.peak))
