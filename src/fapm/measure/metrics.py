"""Metrics of scores that separate defects from good: for pictures, pixels and defect regions.

In every function ``labels`` holds true (or 1) for a defect and false (or 0) for good, and a higher
score means more anomalous. The two arrays may have any shape as long as it is the same, so
``auroc(masks, maps)`` is the pixel AUROC. Equal scores are always treated together: no result
depends on the order of the pictures, and only the order of the scores matters.

All functions raise ``ValueError`` if the shapes differ, if a label is neither 0 nor 1, or if a
score is NaN or infinite. All but :func:`counts_at` also raise it if one of the two classes is
missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

# float64, except that float32 scores stay float32: that loses nothing and halves the memory.
_Scores = NDArray[Any]
_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Right and wrong verdicts at one threshold; a positive is a defect."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def defects(self) -> int:
        """Pictures that are labelled defect, caught or missed."""
        return self.true_positives + self.false_negatives

    @property
    def good(self) -> int:
        """Pictures that are labelled good, passed or falsely alarmed."""
        return self.true_negatives + self.false_positives


@dataclass(frozen=True)
class ImageMetrics:
    """Quality of the image scores; each value is in ``[0, 1]`` except the threshold."""

    auroc: float
    ap: float
    f1_max: float
    f1_threshold: float


@dataclass(frozen=True)
class PixelMetrics:
    """Quality of the anomaly maps; each value is in ``[0, 1]`` except the threshold."""

    auroc: float
    ap: float
    f1_max: float
    f1_threshold: float
    aupro: float


def image_metrics(labels: ArrayLike, scores: ArrayLike) -> ImageMetrics:
    """Compute all image metrics from one sort.

    Parameters
    ----------
    labels
        bool or integer ``[n]``.
    scores
        float ``[n]``.
    """
    ranking = _rank(*_checked(labels, scores))
    return ImageMetrics(_auroc(ranking), _average_precision(ranking), *_f1_max(ranking))


def pixel_metrics(masks: ArrayLike, maps: ArrayLike) -> PixelMetrics:
    """Compute all pixel metrics from one sort, with AUPRO up to the usual FPR of 0.3.

    Parameters
    ----------
    masks
        bool or integer ``[n, H, W]``; the masks of good pictures are empty.
    maps
        float ``[n, H, W]``.

    Raises
    ------
    ValueError
        Also when the arrays do not have three dimensions.
    """
    defects, scores = checked_maps(masks, maps)
    ranking = _rank(defects, scores)
    curve = _pro_curve(ranking, defects, scores)
    return PixelMetrics(
        _auroc(ranking),
        _average_precision(ranking),
        *_f1_max(ranking),
        aupro=_area_up_to(*curve, limit=0.3),
    )


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the probability that a defect scores above a good one.

    Ties count half. This is the Mann-Whitney statistic (Hanley and McNeil, Radiology 143, 1982).
    """
    return _auroc(_rank(*_checked(labels, scores)))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Precision averaged over the defects: the sum of ``(R_i - R_i-1) P_i`` down the scores.

    The curve is a step function, as in scikit-learn: the trapezoidal area would be too optimistic.
    """
    return _average_precision(_rank(*_checked(labels, scores)))


def f1_max(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """Best F1 that any threshold reaches, and that threshold.

    Returns
    -------
    F1 in ``(0, 1]``, and the threshold. The threshold lies halfway between the lowest score that
    must be a defect and the next lower one, so that ``score > threshold`` gives exactly this F1, in
    the scores' own precision too. (If every score must be a defect, it is the next float below the
    lowest.) If several thresholds are equally good, it is the highest, which has the fewest false
    alarms.
    """
    return _f1_max(_rank(*_checked(labels, scores)))


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[_Floats, _Floats]:
    """ROC curve without the points that lie on the line between their neighbours.

    Returns
    -------
    False-positive rate and true-positive rate, float64 ``[k]`` each, from (0, 0) to (1, 1). Neither
    ever falls.
    """
    ranking = _rank(*_checked(labels, scores))
    false, true = _curve(ranking, ranking.caught)
    return false / ranking.negatives, true / ranking.positives


def pro_curve(masks: ArrayLike, maps: ArrayLike) -> tuple[_Floats, _Floats]:
    """Per-region overlap against the false-positive rate, thinned like :func:`roc_curve`.

    A region is an 8-connected part of one picture's mask. The overlap is the share of a region's
    pixels that are marked, averaged over the regions of all pictures, so that small defects count
    as much as large ones. The false-positive rate is taken over all good pixels of all pictures.
    Definition: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129 (2021).

    Returns
    -------
    False-positive rate and overlap, float64 ``[k]`` each, from (0, 0) to (1, 1); neither ever
    falls.

    Raises
    ------
    ValueError
        Also when the arrays do not have the shape ``[n, H, W]``.
    """
    defects, scores = checked_maps(masks, maps)
    return _pro_curve(_rank(defects, scores), defects, scores)


def aupro(masks: ArrayLike, maps: ArrayLike, max_fpr: float = 0.3) -> float:
    """Area under :func:`pro_curve` up to a false-positive rate, divided by that rate.

    The curve is interpolated linearly at the limit. An uninformative map gets ``max_fpr / 2``, not
    0.5.

    Raises
    ------
    ValueError
        Also when ``max_fpr`` is outside ``(0, 1]``, and as :func:`pro_curve`.
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr must be above 0 and at most 1, not {max_fpr}")
    return _area_up_to(*pro_curve(masks, maps), limit=max_fpr)


def counts_at(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Counts:
    """Count verdicts if ``score > threshold`` means defect. One class alone is allowed."""
    defects, values = _checked(labels, scores)
    # float64, as the detector compares: NumPy would round the threshold to float32 scores.
    alarms = values.astype(np.float64) > threshold
    return Counts(
        true_positives=int(np.count_nonzero(alarms & defects)),
        false_positives=int(np.count_nonzero(alarms & ~defects)),
        true_negatives=int(np.count_nonzero(~alarms & ~defects)),
        false_negatives=int(np.count_nonzero(~alarms & defects)),
    )


@dataclass(frozen=True)
class _Ranking:
    """Counts at each level as a threshold falls; a level is a distinct score of a defect.

    Precision and recall are best exactly at a level, and between two levels the ROC and PRO curves
    are flat, so the levels are sufficient. Defect pixels are few. Good pixels therefore need no
    index and no cumulative counts, only one plain sort.
    """

    levels: _Scores  # [k], falling
    below: _Scores  # [k], the next lower score of either class, -inf where there is none
    caught: _Ints  # [k], defects that score the level or higher
    alarms: _Ints  # [k], good ones that score the level or higher
    alarms_above: _Ints  # [k], good ones that score higher than the level
    positives: int
    negatives: int


def _rank(defects: NDArray[np.bool_], scores: _Scores) -> _Ranking:
    positives, negatives = scores[defects], scores[~defects]  # [P], [N]
    if not len(positives) or not len(negatives):
        missing = "good" if len(positives) else "defect"
        raise ValueError(f"labels must hold both classes, but none is {missing}")
    negatives.sort()
    levels, counts = np.unique(positives, return_counts=True)  # [k], rising
    below_level = np.searchsorted(negatives, levels, side="left")
    up_to_level = np.searchsorted(negatives, levels, side="right")
    next_negative = np.where(below_level > 0, negatives[below_level - 1], -np.inf)
    next_positive = np.append(-np.inf, levels[:-1])
    return _Ranking(
        levels=levels[::-1],
        below=np.maximum(next_negative, next_positive)[::-1],
        caught=np.cumsum(counts[::-1]),
        alarms=len(negatives) - below_level[::-1],
        alarms_above=len(negatives) - up_to_level[::-1],
        positives=len(positives),
        negatives=len(negatives),
    )


def _auroc(ranking: _Ranking) -> float:
    # The counts are divided last, so that the area is summed without rounding.
    area = _area(*_curve(ranking, ranking.caught))
    return area / (ranking.positives * ranking.negatives)


def _average_precision(ranking: _Ranking) -> float:
    precision = ranking.caught / (ranking.caught + ranking.alarms)  # [k]
    return float(np.diff(ranking.caught, prepend=0) @ precision) / ranking.positives


def _f1_max(ranking: _Ranking) -> tuple[float, float]:
    f1 = 2 * ranking.caught / (ranking.caught + ranking.alarms + ranking.positives)  # [k]
    best = int(f1.argmax())
    return float(f1[best]), _between(ranking.below[best], ranking.levels[best])


def _between(low: Any, high: Any) -> float:
    """Threshold with ``low <= threshold < high``, halfway if the dtype of ``high`` allows it."""
    if math.isinf(low):
        return float(np.nextafter(high, low, dtype=high.dtype))
    middle = float(high.dtype.type(float(low) / 2 + float(high) / 2))
    # Halfway between neighbouring floats rounds to one of them, perhaps the wrong one.
    return middle if low <= middle < high else float(low)


def _pro_curve(
    ranking: _Ranking, defects: NDArray[np.bool_], scores: _Scores
) -> tuple[_Floats, _Floats]:
    rising = ranking.levels[::-1]
    level = len(rising) - 1 - np.searchsorted(rising, scores[defects])  # [P]
    found = np.cumsum(np.bincount(level, weights=_region_shares(defects)))  # [k]
    false, overlap = _curve(ranking, found)
    # The last value is the number of regions, give or take rounding: so the curve ends at 1.
    return false / ranking.negatives, overlap / found[-1]


def _region_shares(defects: NDArray[np.bool_]) -> _Floats:
    """Share ``1 / size`` of its region for each defect pixel in C order, float64 ``[P]``."""
    shares = []
    for mask in defects:
        _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        region = regions[mask]
        shares.append(1 / np.bincount(region)[region])
    return np.concatenate(shares)


def _curve(ranking: _Ranking, found: NDArray[Any]) -> tuple[_Floats, _Floats]:
    """Corners of the curve of ``found`` (``[k]``, the sum at each level) against false alarms.

    A horizontal line leads to a level, at the height of the level before. The defects and the good
    ones with the level's score are then added together: this is a vertical line without ties, and
    a slanted one with them.
    """
    x = np.zeros(2 * len(found) + 2)
    y = np.zeros(2 * len(found) + 2)
    x[1:-1:2], x[2:-1:2], x[-1] = ranking.alarms_above, ranking.alarms, ranking.negatives
    y[3:-1:2], y[2:-1:2], y[-1] = found[:-1], found, found[-1]
    moved = np.append(True, (np.diff(x) != 0) | (np.diff(y) != 0))
    x, y = x[moved], y[moved]
    dx, dy = np.diff(x), np.diff(y)
    corner = np.ones(len(x), dtype=bool)
    corner[1:-1] = dx[:-1] * dy[1:] != dx[1:] * dy[:-1]
    return x[corner], y[corner]


def _area(x: _Floats, y: _Floats) -> float:
    """Area under straight lines; :func:`numpy.trapezoid` has another name before NumPy 2."""
    return float(np.diff(x) @ (y[1:] + y[:-1])) / 2


def _area_up_to(x: _Floats, y: _Floats, limit: float) -> float:
    """Mean height of the curve over ``x`` from 0 to ``limit``."""
    inside = x <= limit
    height = np.interp(limit, x, y)
    return _area(np.append(x[inside], limit), np.append(y[inside], height)) / limit


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], _Scores]:
    """Check the arrays; return labels as bool and scores as float32 or float64."""
    truth, values = np.asarray(labels), np.asarray(scores)
    if truth.shape != values.shape:
        raise ValueError(
            f"labels and scores must have the same shape, not {truth.shape} and {values.shape}"
        )
    if truth.dtype != np.bool_ and not np.all((truth == 0) | (truth == 1)):
        raise ValueError("labels must be 0 (good) or 1 (defect)")
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite numbers: some are NaN or infinite")
    return truth.astype(np.bool_, copy=False), values


def checked_maps(masks: ArrayLike, maps: ArrayLike) -> tuple[NDArray[np.bool_], _Scores]:
    """Check arrays ``[n, H, W]``; return masks as bool and maps as float32 or float64."""
    defects, scores = _checked(masks, maps)
    if defects.ndim != 3:
        raise ValueError(f"masks and maps must be [n, H, W], not {defects.shape}")
    return defects, scores
