"""AUPIMO: the share of each defect that is marked while hardly any good pixel is.

Definition: Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed
and Low Tolerance", BMVC 2024 (arXiv 2401.01984). At each threshold the false-positive rate is the
share of marked pixels of a good picture, averaged over the *good pictures* alone, and the overlap
is the share of one defective picture's mask that is marked. The area under a picture's overlap,
over the logarithm of the rate between two bounds, is divided by its largest possible value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fapm.measure.metrics import checked_maps

FPR_BOUNDS = (1e-5, 1e-4)


@dataclass(frozen=True)
class Aupimo:
    """Area under the per-image overlap curves, each in ``[0, 1]``.

    Attributes
    ----------
    mean
        over the defective pictures.
    per_image
        float64 ``[n]`` in the order of the pictures; NaN for good ones.
    """

    mean: float
    per_image: NDArray[np.float64]


def aupimo(
    masks: ArrayLike, maps: ArrayLike, fpr_bounds: tuple[float, float] = FPR_BOUNDS
) -> Aupimo:
    """Compute exact areas: every score is a threshold, and equal scores are treated together.

    If the good pictures have too few pixels to show a rate this low, the overlap is the one without
    any false alarm.

    Parameters
    ----------
    masks
        bool or integer ``[n, H, W]``, 1 for a defect; a picture with an empty mask is good.
    maps
        float ``[n, H, W]``, higher is more anomalous.
    fpr_bounds
        lowest and highest false-positive rate, ``0 < low < high <= 1``.

    Raises
    ------
    ValueError
        No picture is good or none is defective, the shapes differ or have other than three
        dimensions, a mask holds more than 0 and 1, a score is NaN or infinite, or the bounds are
        out of range.
    """
    low, high = fpr_bounds
    if not 0 < low < high <= 1:
        raise ValueError(f"fpr_bounds must be 0 < low < high <= 1, not {low} and {high}")
    defects, scores = checked_maps(masks, maps)
    defective = defects.any(axis=(1, 2))  # [n]
    if defective.all() or not defective.any():
        raise ValueError(
            "aupimo needs pictures of both kinds, but none is "
            + ("good (no mask is empty)" if defective.any() else "defective (all masks are empty)")
        )
    # All pictures are of one size: the mean of their rates is the rate of all their pixels.
    normals = np.sort(scores[~defective], axis=None)
    per_image = np.full(len(defects), np.nan)
    for number in np.flatnonzero(defective):
        found = scores[number][defects[number]]
        per_image[number] = _found_share(found, normals, low, high).mean()
    return Aupimo(float(np.nanmean(per_image)), per_image)


def _found_share(
    found: NDArray[Any], normals: NDArray[Any], low: float, high: float
) -> NDArray[np.float64]:
    """Share of the way from ``log low`` to ``log high`` on which each defect pixel is marked.

    The mean over the pixels of a mask is the area under its overlap. A pixel is not marked while
    the rate is below ``start``, the share of good pixels that score higher. It is marked from
    ``end`` on, the share of good pixels that score as high or higher. Between the two, with ties,
    the overlap is a straight line.
    """
    count = len(normals)
    start = (count - np.searchsorted(normals, found, side="right")) / count  # [P]
    end = (count - np.searchsorted(normals, found, side="left")) / count
    left, right = np.clip(start, low, high), np.clip(end, low, high)
    tied = end > start
    slope = 1 / np.where(tied, end - start, 1)
    # The integral of slope * (rate - start) over d(log rate), from left to right.
    rising = slope * (right - left - start * np.log(right / left))
    marked = np.log(high / right) + np.where(tied, rising, 0)
    return np.clip(marked / math.log(high / low), 0, 1)
