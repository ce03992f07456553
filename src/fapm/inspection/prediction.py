"""A prediction: verdict, score and map of one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fapm.bundle.calibration import Verdict
from fapm.frames.layout import Layout
from fapm.inspection.regions import Region, Samples, connected_regions, sampled
from fapm.inspection.rendering import RenderedMap, render_map
from fapm.plain import shortened


class Box(NamedTuple):
    """A rectangle in a picture, in fractions ``0 .. 1`` of its width and height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Comparison:
    """The nearest key of the worst cell's patch, with which that cell was compared.

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
    thumbnail: bytes | None = field(repr=False)


@dataclass(frozen=True)
class Prediction:
    """Verdict, score and map of one picture.

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
    layout
        of the frame: its size, its crop and its tiles.
    comparison
        what the worst cell was compared with.
    roi
        what was inspected of the frame, bool ``[h, w]``; None: everything.
    reason
        why the verdict is ``unsure`` whatever the score: the part was not found in the picture, or
        too little of it; None otherwise.

    Examples
    --------
    >>> import fapm
    >>> prediction = fapm.fit("good", resize=64).predict("scratched.png")
    >>> prediction.verdict
    'defect'
    >>> prediction.score > prediction.threshold
    True
    >>> prediction.anomaly_map.shape == (prediction.height, prediction.width)
    True
    >>> [(region.x, region.y) for region in prediction.regions]
    [(..., ...)]
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
    layout: Layout
    comparison: Comparison
    roi: NDArray[np.bool_] | None = None
    reason: str | None = None

    def __repr__(self) -> str:
        count = len(self.regions)
        return (
            f"Prediction({shortened(self.source)}, {self.verdict}, score {self.score:.4g}, "
            f"threshold {self.threshold:.4g}, {count} region{'' if count == 1 else 's'})"
        )

    @property
    def inspected(self) -> NDArray[np.bool_] | None:
        """Whether each pixel of the picture was inspected, bool ``[H, W]``; None: everything."""
        if self.roi is None:
            return None
        roi = self.roi.astype(np.float32)
        restored = self.layout.restore(roi, (self.height, self.width))
        return np.asarray(restored >= 0.5)

    @property
    def anomaly_map(self) -> NDArray[np.float32]:
        """Anomaly map in the picture's own geometry, float32 ``[H, W]``, raw.

        0 outside a centre crop, where the encoder saw nothing, and outside the region of interest.
        Made anew at each access: thousands of predictions of large pictures can be kept.
        """
        restored = self.layout.restore(self.frame_map, (self.height, self.width))
        inspected = self.inspected
        if inspected is not None:
            restored[~inspected] = 0
        return restored

    def render_map(self) -> RenderedMap:
        """The frame's map as a grey picture with its scale, for a live view.

        It has the size of ``frame_map``: a display enlarges it. White is twice the threshold of
        the map, so that a shade means the same in every picture of a detector. Without a threshold
        white is the map's own maximum. It is 0 outside the region of interest.
        """
        shown = self.frame_map if self.roi is None else np.where(self.roi, self.frame_map, 0)
        return render_map(shown, self.map_threshold)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Places where the map is above its threshold; the region with the highest peak first.

        They are looked for in the frame's map, and only there in the picture's own size: a picture
        whose map stays below the threshold costs next to nothing.
        """
        above = self.frame_map > self.map_threshold
        if not above.any():
            return ()
        rows, columns = (
            Samples.of(pixels, axis.shown, axis.on_map(axis.window.start), axis.on_map(axis.canvas))
            for pixels, axis in ((self.height, self.layout.rows), (self.width, self.layout.columns))
        )
        # Pixels that touch in the picture lie so few pixels of the map apart that the pieces which
        # they come from touch too, once these have grown by `reach`.
        reach = max(1, math.ceil(max(rows.step, columns.step) / 2))
        brush = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
        grown = cv2.dilate(above.astype(np.uint8), brush)
        count, pieces, boxes, _ = cv2.connectedComponentsWithStats(grown, connectivity=8)
        regions: list[Region] = []
        for piece in range(1, count):
            x, y, width, height, _ = map(int, boxes[piece])
            window = rows.within(y, y + height), columns.within(x, x + width)
            # Without the others: where this piece is above the threshold, all around is its own.
            values = sampled(np.where(pieces == piece, self.frame_map, 0), *window)
            found = values > self.map_threshold
            found &= window[0].seen[:, None] & window[1].seen
            if self.roi is not None:
                found &= sampled(self.roi.astype(np.float32), *window) >= 0.5
            regions += connected_regions(values, found, window[0].first, window[1].first)
        return tuple(sorted(regions, key=lambda region: -region.peak))
