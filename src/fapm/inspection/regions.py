"""Regions: connected places of an anomaly map above its threshold, found at the map's own size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


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
    contour: NDArray[np.int32] = field(repr=False)


class Samples(NamedTuple):
    """Places of the pixels of a picture's edge between those of its map, as in ``Layout.restore``.

    Attributes
    ----------
    first
        number of the first of these pixels.
    before, after
        the map's pixels on either side of each, int64 ``[n]``, ascending.
    share
        of the one after in what lies between, float32 ``[n]``.
    seen
        whether the pixel lies in the centre crop, bool ``[n]``.
    step
        pixels of the map from one to the next.
    """

    first: int
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    share: NDArray[np.float32]
    seen: NDArray[np.bool_]
    step: float

    @classmethod
    def of(cls, pixels: int, shown: int, margin: int, whole: int) -> Samples:
        """All pixels of an edge whose map shows ``shown`` of ``whole``, from ``margin`` on."""
        step = whole / pixels
        centres = (np.arange(pixels) + 0.5) * step - margin
        places = (centres - 0.5).clip(0, shown - 1)
        before = places.astype(np.int64)
        after = np.minimum(before + 1, shown - 1)
        share = (places - before).astype(np.float32)
        return cls(0, before, after, share, (centres >= 0) & (centres < shown), step)

    def within(self, start: int, stop: int) -> Samples:
        """Those that lie behind the map's pixels from ``start`` to before ``stop``."""
        first, last = np.searchsorted(self.before, [start, stop])
        here = slice(int(first), int(last))
        return Samples(
            int(first), self.before[here], self.after[here], self.share[here], self.seen[here],
            self.step,
        )  # fmt: skip


def sampled(values: NDArray[np.float32], rows: Samples, columns: Samples) -> NDArray[np.float32]:
    """Values between the map's pixels, bilinear, float32 ``[rows, columns]``."""
    across = _between(values.T, columns).T
    return np.ascontiguousarray(_between(across, rows))


def _between(values: NDArray[np.float32], rows: Samples) -> NDArray[np.float32]:
    """:func:`sampled` along the first axis alone."""
    before, after = values[rows.before], values[rows.after]
    after -= before
    after *= rows.share[:, None]
    before += after
    return before


def connected_regions(
    values: NDArray[np.float32], found: NDArray[np.bool_], top: int, left: int
) -> list[Region]:
    """The connected parts of ``found``, in a window ``[h, w]`` that begins at ``top, left``."""
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(
        found.astype(np.uint8), connectivity=8
    )
    regions = []
    for number in range(1, count):
        x, y, width, height, area = map(int, boxes[number])
        box = np.s_[y : y + height, x : x + width]
        inside = numbers[box] == number
        x, y = left + x, top + y
        outlines, _ = cv2.findContours(
            inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
        )
        outline = outlines[0].reshape(-1, 2).astype(np.int32)
        peak = float(values[box][inside].max())
        regions.append(Region(x, y, width, height, area, peak, outline))
    return regions
