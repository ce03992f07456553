"""Thresholds from normal pictures alone: the rate asked for is the rate that comes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fapm.bundle.calibration import Calibration, calibrate, promises, upper_level

Floats = NDArray[np.float64]

RATES = st.sampled_from([1e-4, 0.01, 0.02, 0.05]) | st.floats(1e-6, 0.499)


@st.composite
def score_sets(draw: st.DrawFn, min_size: int = 2) -> Floats:
    """Scores as parts give them: continuous, with ties, or of two kinds of good parts."""
    size = draw(st.integers(min_size, 150))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.gamma(draw(st.sampled_from([0.5, 2.0, 20.0])), size=size)
    if draw(st.booleans()):
        scores = scores.round(draw(st.integers(0, 1)))
    others = rng.random(size) < draw(st.sampled_from([0, 0.02, 0.05, 0.1, 0.3]))
    return scores + draw(st.sampled_from([1, 10, 100])) * others


def calibration_of(scores: Floats, **rates: float) -> Calibration:
    chosen = {"false_positive_rate": 0.01, "unsure_rate": 0.05, **rates}
    return calibrate(scores, scores, **chosen)


# One level


@settings(deadline=None)
@given(scores=score_sets(), first=RATES, second=RATES)
def test_a_smaller_rate_never_gives_a_lower_level(
    scores: Floats, first: float, second: float
) -> None:
    lower, higher = sorted((first, second))
    tolerance = 1e-9 * scores.max()
    assert upper_level(scores, lower) >= upper_level(scores, higher) - tolerance


def test_the_level_does_not_fall_where_the_tail_takes_over() -> None:
    # 99 parts, six of another kind: 1 % is beyond what 99 can show, 5 % is not.
    scores = np.concatenate([np.linspace(0, 0.01, 93), np.full(6, 10.0)])
    assert upper_level(scores, 0.01) >= upper_level(scores, 0.05)


@settings(deadline=None)
@given(scores=score_sets(), rate=RATES, scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_a_level_moves_and_scales_with_the_scores(
    scores: Floats, rate: float, scale: float, shift: float
) -> None:
    # Where rounding cannot make different values equal.
    assume(np.unique(scores).size == np.unique(scale * scores + shift).size)
    expected = scale * upper_level(scores, rate) + shift
    assert upper_level(scale * scores + shift, rate) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(scores=score_sets(), rate=RATES, seed=st.integers(0, 100))
def test_the_order_of_the_pictures_does_not_matter(scores: Floats, rate: float, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(scores)
    assert upper_level(shuffled, rate) == pytest.approx(upper_level(scores, rate), rel=1e-9)


@pytest.mark.parametrize("count", [2, 4, 19, 20, 99, 100, 1000])
@pytest.mark.parametrize("rate", [1e-6, 0.01, 0.3])
def test_equal_scores_have_one_level(count: int, rate: float) -> None:
    assert upper_level(np.full(count, 3.25), rate) == pytest.approx(3.25)


@settings(deadline=None)
@given(scores=score_sets(min_size=20), rate=st.floats(0.05, 0.499))
def test_where_the_pictures_show_the_rate_the_level_lies_among_their_scores(
    scores: Floats, rate: float
) -> None:
    level = upper_level(scores, rate)
    assert scores.min() <= level <= scores.max()
    # To within one picture, that share is above.
    above = np.count_nonzero(scores > level)
    at_least = np.count_nonzero(scores >= level)
    assert above - 1 <= len(scores) * rate <= at_least + 1


Law = Callable[..., Floats]
LAWS = {
    "normal": scipy.stats.norm(10, 1),
    "gamma": scipy.stats.gamma(20),
    "exponential": scipy.stats.expon(),
    "uniform": scipy.stats.uniform(),
}


def mean_share_above(law: str, count: int, rate: float, sets: int = 3000) -> float:
    """How often new normal scores exceed a level chosen from `count`, on average over sets."""
    rng = np.random.default_rng(count)
    levels = [upper_level(LAWS[law].rvs(count, random_state=rng), rate) for _ in range(sets)]
    return float(np.mean(LAWS[law].sf(levels)))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("count", "rate"), [(100, 0.01), (150, 0.01), (300, 0.01), (20, 0.05), (50, 0.05), (40, 0.2)]
)
def test_new_normal_parts_exceed_the_level_as_often_as_asked(
    law: str, count: int, rate: float
) -> None:
    """Where the pictures show the rate this holds for any distribution."""
    assert mean_share_above(law, count, rate) == pytest.approx(rate, rel=0.15)


@pytest.mark.parametrize("law", ["normal", "gamma", "exponential"])
@pytest.mark.parametrize(("count", "rate"), [(20, 0.01), (50, 0.01), (99, 0.01), (50, 0.001)])
def test_beyond_what_the_pictures_show_the_rate_is_met_roughly(
    law: str, count: int, rate: float
) -> None:
    assert rate / 4 < mean_share_above(law, count, rate, sets=1000) < rate * 4


# Verdicts


@settings(deadline=None)
@given(scores=score_sets(), rates=st.tuples(RATES, RATES))
def test_the_unsure_band_lies_below_the_threshold(
    scores: Floats, rates: tuple[float, float]
) -> None:
    low, high = sorted(rates)
    calibration = calibration_of(scores, false_positive_rate=low, unsure_rate=high)
    assert calibration.unsure_threshold <= calibration.threshold + 1e-9 * scores.max()


def test_verdicts_change_just_above_each_threshold() -> None:
    calibration = Calibration(np.arange(5.0), 3.0, 2.0, 1.0, extrapolated=False)
    verdicts = {
        score: calibration.verdict(score)
        for score in (-1.0, 2.0, np.nextafter(2.0, 3), 3.0, np.nextafter(3.0, 4), math.inf)
    }
    assert list(verdicts.values()) == ["good", "good", "unsure", "unsure", "defect", "defect"]


def test_without_a_band_there_is_no_unsure() -> None:
    calibration = calibration_of(np.arange(500.0), false_positive_rate=0.05, unsure_rate=0.05)
    assert calibration.threshold == calibration.unsure_threshold
    verdicts = {calibration.verdict(score) for score in np.linspace(0, 600, 1000)}
    assert verdicts == {"good", "defect"}


def test_a_score_that_is_not_a_number_is_not_good() -> None:
    assert calibration_of(np.arange(200.0)).verdict(math.nan) != "good"


def test_maps_have_a_threshold_of_their_own() -> None:
    scores = np.arange(200.0)
    calibration = calibrate(scores, 10 * scores, false_positive_rate=0.01, unsure_rate=0.05)
    assert calibration.map_threshold == pytest.approx(10 * calibration.threshold)


def test_thresholds_follow_from_their_rates() -> None:
    scores = np.random.default_rng(0).gamma(5, size=400)
    calibration = calibration_of(scores, false_positive_rate=0.02, unsure_rate=0.1)
    assert calibration.threshold == upper_level(scores, 0.02)
    assert calibration.unsure_threshold == upper_level(scores, 0.1)
    np.testing.assert_array_equal(calibration.scores, scores)


# Percentiles


@settings(deadline=None)
@given(scores=score_sets(), score=st.floats(-5, 60), among=st.booleans(), data=st.data())
def test_percentile_is_scipys_with_ties_counted_half(
    scores: Floats, score: float, among: bool, data: st.DataObject
) -> None:
    if among:
        score = float(data.draw(st.sampled_from(scores.tolist())))
    expected = scipy.stats.percentileofscore(scores, score, kind="mean")
    assert calibration_of(scores).percentile(score) == pytest.approx(expected)


def test_percentiles_reach_from_0_to_100() -> None:
    calibration = calibration_of(np.array([1.0, 2.0, 2.0, 3.0]))
    percentiles = [calibration.percentile(score) for score in (0.5, 1.0, 1.5, 2.0, 3.0, 3.5)]
    assert percentiles == [0.0, 12.5, 25.0, 50.0, 87.5, 100.0]


# Few pictures


def test_one_picture_gives_no_threshold_and_every_verdict_is_unsure() -> None:
    calibration = calibration_of(np.empty(0))
    assert math.isnan(calibration.threshold)
    assert math.isnan(calibration.unsure_threshold)
    assert math.isnan(calibration.map_threshold)
    assert {calibration.verdict(score) for score in (0.0, 1e9)} == {"unsure"}
    assert math.isnan(calibration.percentile(1.0))


@pytest.mark.parametrize("count", [2, 3, 4, 5, 50, 99])
def test_few_pictures_give_a_threshold_above_nearly_all_of_them(count: int) -> None:
    scores = np.random.default_rng(count).gamma(20, size=count)
    calibration = calibration_of(scores)
    assert calibration.extrapolated
    assert math.isfinite(calibration.threshold)
    assert np.count_nonzero(scores > calibration.threshold) <= 1


@pytest.mark.parametrize(
    ("count", "rate", "extrapolated"),
    [(100, 0.01, False), (99, 0.01, True), (20, 0.05, False), (19, 0.05, True)],
)
def test_beyond_one_picture_in_the_tail_it_is_extrapolated(
    count: int, rate: float, extrapolated: bool
) -> None:
    calibration = calibration_of(np.arange(float(count)), false_positive_rate=rate)
    assert calibration.extrapolated is extrapolated


@pytest.mark.parametrize(
    ("count", "rate", "words"),
    [
        (1, 0.01, ["1 good picture gives no threshold", "'unsure'"]),
        (2, 0.01, ["2 good pictures", "rough guess"]),
        (4, 0.01, ["4 good pictures", "rough guess"]),
        (4, 0.4, ["4 good pictures", "rough guess"]),
        (5, 0.01, ["5 good pictures cannot show", "1 %", "100 or more"]),
        (50, 0.01, ["50 good pictures cannot show", "1 %", "100 or more"]),
        (99, 0.01, ["99 good pictures cannot show", "100 or more"]),
        (500, 0.001, ["500 good pictures cannot show", "0.1 %", "1000 or more"]),
    ],
)
def test_what_few_pictures_cannot_promise_is_said_in_one_sentence(
    count: int, rate: float, words: list[str]
) -> None:
    (sentence,) = promises(count, rate)
    assert all(word in sentence for word in words)
    assert "\n" not in sentence


@pytest.mark.parametrize(("count", "rate"), [(100, 0.01), (50, 0.02), (5, 0.3), (10_000, 0.001)])
def test_enough_pictures_need_no_caveat(count: int, rate: float) -> None:
    assert promises(count, rate) == []
