"""Thresholds from normal pictures alone (leave-one-out scores in, levels out)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fapm.plain import Described, Tensors, finite, require

Verdict = Literal["good", "unsure", "defect"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

# With fewer pictures leave-one-out says little: each one left out takes a fifth of the memory.
FEW_PICTURES = 5

# Scores are in distance units or, with the unit 1, in those of the features. Far below either, this
# is what rounding in the encoder makes of one picture twice: no threshold is lower.
_FLOOR = 1e-3

_LEVELS = ("threshold", "unsure_threshold", "map_threshold")


@dataclass(frozen=True)
class Calibration:
    """Thresholds between good and bad, from the normal pictures' own scores.

    Attributes
    ----------
    scores
        float64 ``[N]``, leave-one-out score of each training picture in their order; empty where
        there is only one.
    map_maxima
        float64 ``[N]``, the largest value of each of those pictures' maps.
    set_aside
        positions of pictures whose scores do not count: they were chosen because they alarmed, and
        are no sample of good parts.
    threshold
        scores above it are a defect; NaN where nothing could be learned.
    unsure_threshold
        scores above it are at least unsure; not above ``threshold``.
    map_threshold
        cells of an anomaly map above it belong to a defect region.
    extrapolated
        whether the rate asked for is beyond what ``N`` pictures can show, so that the threshold
        comes from a fitted tail.
    """

    scores: NDArray[np.float64]
    threshold: float
    unsure_threshold: float
    map_threshold: float
    extrapolated: bool
    map_maxima: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    set_aside: tuple[int, ...] = ()

    def described(self) -> Described:
        """Describe it for a bundle."""
        levels = {name: finite(getattr(self, name)) for name in _LEVELS}
        aside = list(self.set_aside)
        tensors = {"scores": self.scores, "map_maxima": self.map_maxima}
        return {**levels, "extrapolated": self.extrapolated, "set_aside": aside}, tensors

    @classmethod
    def restored(cls, described: Mapping[str, Any], tensors: Tensors, pictures: int) -> Calibration:
        """Restore what :meth:`described` described, of a detector with so many pictures.

        Raises
        ------
        BundleError
            It contradicts itself or the number of pictures.
        """
        scores, maxima, aside = tensors["scores"], tensors["map_maxima"], described["set_aside"]
        levels = [math.nan if described[name] is None else described[name] for name in _LEVELS]
        threshold, unsure, cells = levels
        wrong = "its thresholds contradict its scores"
        require(
            scores.dtype == maxima.dtype == np.float64
            and scores.shape == maxima.shape == ((pictures,) if pictures > 1 else (0,))
            and bool(np.isfinite(scores).all() and np.isfinite(maxima).all()),
            wrong,
        )
        require(
            isinstance(aside, list)
            and all(isinstance(i, int) and 0 <= i < len(scores) for i in aside)
            and len(set(aside)) == len(aside) < max(1, len(scores)),
            wrong,
        )
        require(
            all(isinstance(level, float) for level in levels)
            and (
                (unsure <= threshold and all(map(math.isfinite, levels)))
                or (pictures == 1 and all(map(math.isnan, levels)))
            ),
            wrong,
        )
        extrapolated = bool(described["extrapolated"])
        return cls(scores, threshold, unsure, cells, extrapolated, maxima, tuple(aside))

    @property
    def counted(self) -> NDArray[np.float64]:
        """The scores that thresholds and percentiles are made of, float64 ``[n]``."""
        return np.delete(self.scores, self.set_aside)

    def verdict(self, score: float) -> Verdict:
        """``good``, ``unsure`` or ``defect``; without thresholds everything is unsure."""
        if score > self.threshold:
            return "defect"
        return "good" if score <= self.unsure_threshold else "unsure"

    def percentile(self, score: float) -> float:
        """Share of the normal pictures with a lower score, in percent; NaN without any."""
        scores = self.counted
        if not len(scores):
            return math.nan
        below = np.count_nonzero(scores < score)
        equal = np.count_nonzero(scores == score)
        return float(100 * (below + equal / 2) / len(scores))


def calibrate(
    scores: NDArray[np.float64],
    map_maxima: NDArray[np.float64],
    *,
    false_positive_rate: float,
    unsure_rate: float,
    set_aside: tuple[int, ...] = (),
) -> Calibration:
    """Choose thresholds that the wanted share of normal pictures exceeds.

    Parameters
    ----------
    scores, map_maxima
        leave-one-out image scores and largest map values, float ``[N]``; empty for ``N = 1``.
    set_aside
        positions of those that do not count; not all.
    """
    if not len(scores):
        return Calibration(scores, math.nan, math.nan, math.nan, extrapolated=True)
    counted, maxima = np.delete(scores, set_aside), np.delete(map_maxima, set_aside)
    return Calibration(
        scores=scores,
        threshold=max(_FLOOR, upper_level(counted, false_positive_rate)),
        unsure_threshold=max(_FLOOR, upper_level(counted, unsure_rate)),
        map_threshold=max(_FLOOR, upper_level(maxima, false_positive_rate)),
        extrapolated=len(counted) * false_positive_rate < 1,
        map_maxima=map_maxima,
        set_aside=set_aside,
    )


def upper_level(values: NDArray[np.float64], rate: float) -> float:
    """Level that a share ``rate`` of the values' distribution exceeds.

    Where the ``n`` values can show the rate (``n * rate >= 1``) it is their quantile at
    ``rate (n + 1)`` from above (Weibull's plotting position): a new value of the same distribution
    exceeds it with probability ``rate``, on average over all samples of ``n``. Beyond that the tail
    above the 80 % quantile (the median for fewer than 20 values) is taken as exponential, the
    extreme-value limit for most light-tailed distributions and the only one whose single parameter
    so few values support. That its mean is known from ``k`` values only is taken into account: with
    their sum ``S`` a new one exceeds ``t`` with probability ``(1 + t / S) ** -k``. The level is
    never below the largest value.
    """
    if len(values) * rate >= 1:
        return float(np.quantile(values, 1 - rate, method="weibull"))
    start = 0.8 if len(values) >= 20 else 0.5
    base = float(np.quantile(values, start, method="weibull"))
    excess = values[values > base] - base
    count, total = len(excess), float(excess.sum())
    reach = total * (((1 - start) / rate) ** (1 / count) - 1) if count else 0.0
    return max(float(values.max()), base + reach)


def promises(count: int, false_positive_rate: float) -> list[str]:
    """Promises that ``count`` normal pictures cannot keep, one sentence each; empty without."""
    if count == 1:
        return [
            "1 good picture gives no threshold: every verdict will be 'unsure'; "
            "scores and heatmaps work, add more good pictures for verdicts"
        ]
    if count < FEW_PICTURES:
        return [
            f"{count} good pictures say little about how good parts vary: the threshold is a "
            f"rough guess, false alarms and misses must be expected; use at least 20"
        ]
    if count * false_positive_rate < 1:
        needed = math.ceil(1 / false_positive_rate)
        return [
            f"{count} good pictures cannot show a false-positive rate of "
            f"{100 * false_positive_rate:g} %: the threshold is extrapolated from their tail; "
            f"{needed} or more would show it"
        ]
    return []
