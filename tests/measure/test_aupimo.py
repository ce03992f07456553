"""AUPIMO against its definition: the curve of each picture, integrated piece by piece."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fapm.measure.aupimo import aupimo

Arrays = tuple[NDArray[Any], NDArray[Any]]


def reference(
    masks: NDArray[Any], maps: NDArray[Any], low: float, high: float
) -> list[float | None]:
    """The definition: rates at every threshold, straight lines between, over the log of the rate.

    The false-positive rate is the mean over the good pictures of their own rates.
    """
    thresholds = np.unique(maps)[::-1]
    good = [m for m, mask in zip(maps, masks, strict=True) if not mask.any()]
    rates = [0.0] + [float(np.mean([(m >= t).mean() for m in good])) for t in thresholds]
    areas: list[float | None] = []
    for picture, mask in zip(maps, masks, strict=True):
        if not mask.any():
            areas.append(None)
            continue
        overlaps = [0.0] + [float((picture[mask] >= t).mean()) for t in thresholds]
        points = list(zip(rates, overlaps, strict=True))
        area = 0.0
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            left, right = max(x0, low), min(x1, high)
            if left >= right:
                continue
            slope = (y1 - y0) / (x1 - x0)
            # y = (y0 - slope x0) + slope x; its integral over d(log x)
            area += (y0 - slope * x0) * math.log(right / left) + slope * (right - left)
        areas.append(area / math.log(high / low))
    return areas


@st.composite
def small_maps(draw: st.DrawFn) -> Arrays:
    """Good and defective pictures of at most 6 x 6, maps with many ties or none."""
    count = draw(st.integers(2, 5))
    shape = count, draw(st.integers(1, 6)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = rng.random(shape) < 0.4
    masks[0, 0, 0] = True
    masks[1::2] = False
    maps = rng.integers(0, draw(st.sampled_from([2, 6, 1000])), shape)
    return masks, maps.astype(draw(st.sampled_from([np.float32, np.float64])))


@given(small_maps(), st.sampled_from([(1e-5, 1e-4), (0.01, 0.3), (0.2, 1.0)]))
@settings(deadline=None)
def test_agrees_with_the_definition(data: Arrays, bounds: tuple[float, float]) -> None:
    found = aupimo(*data, bounds)
    expected = [np.nan if area is None else area for area in reference(*data, *bounds)]
    np.testing.assert_allclose(found.per_image, expected, atol=1e-9)
    assert found.mean == pytest.approx(np.nanmean(expected), abs=1e-9)


@given(small_maps())
def test_only_the_order_of_the_scores_matters(data: Arrays) -> None:
    masks, maps = data
    again = aupimo(masks, np.exp(maps.astype(np.float64) / 100) - 3, (0.01, 0.5))
    np.testing.assert_array_equal(aupimo(masks, maps, (0.01, 0.5)).per_image, again.per_image)


def pictures(scores: list[float], mask: list[int], good: NDArray[Any]) -> Arrays:
    """One defective picture of few pixels beside good ones ``[n, pixels]``, as one-row maps."""
    width = good.shape[1]
    defective = np.full(width, -9.0)
    defective[: len(scores)] = scores
    masks = np.zeros((1 + len(good), 1, width), bool)
    masks[0, 0, : len(mask)] = mask
    return masks, np.concatenate([defective[None], good])[:, None]


def test_a_case_worked_by_hand() -> None:
    # 1,000 good pixels with scores 1 .. 1,000: a pixel of score s + 1/2 has 1,000 - s above it.
    good = np.arange(1, 1001).reshape(2, 500)
    masks, maps = pictures([2000, 979.5, 500.5], [1, 1, 1], good)
    found = aupimo(masks, maps, (0.001, 0.1))
    # Always marked; marked from 0.021 on; from 0.5 on, which is too late.
    assert found.mean == pytest.approx((1 + math.log(0.1 / 0.021) / math.log(100) + 0) / 3)
    assert np.isnan(found.per_image[1:]).all()


def test_perfect_blind_and_constant_maps() -> None:
    masks = np.zeros((3, 8, 8), bool)
    masks[0, 2:4, 2:4] = masks[2, 5, 5] = True
    assert aupimo(masks, masks.astype(np.float32)).mean == 1
    assert aupimo(masks, ~masks).mean == 0
    # Of a constant map a random choice is marked: the mean of the rate over its logarithm.
    expected = (1e-4 - 1e-5) / math.log(10)
    assert aupimo(masks, np.ones(masks.shape)).mean == pytest.approx(expected)


def test_good_pixels_of_defective_pictures_are_no_false_alarms() -> None:
    masks, maps = pictures([5, 9, 9, 9], [1, 0, 0, 0], np.zeros((2, 50)))
    assert aupimo(masks, maps).mean == 1


def test_one_loud_good_picture_costs_all() -> None:
    good = np.zeros((100, 50))
    masks, maps = pictures([5], [1], good)
    assert aupimo(masks, maps).mean == 1
    good[7, 3] = 6  # one pixel of 5,000 is twice the highest rate
    masks, maps = pictures([5], [1], good)
    assert aupimo(masks, maps).mean == 0


@pytest.mark.parametrize(
    ("masks", "maps", "message"),
    [
        (np.ones((2, 2, 3), bool), np.ones((2, 2, 3)), "none is good"),
        (np.zeros((2, 2, 3), bool), np.ones((2, 2, 3)), "none is defective"),
        (np.zeros((0, 2, 3), bool), np.ones((0, 2, 3)), "both kinds"),
        (np.ones((2, 3), bool), np.ones((2, 3)), r"\[n, H, W\]"),
        (np.ones((1, 2, 3), bool), np.ones((1, 2, 4)), "same shape"),
        (np.eye(2, dtype=bool)[None], np.full((1, 2, 2), np.nan), "finite"),
        (255 * np.eye(2, dtype=np.uint8)[None], np.ones((1, 2, 2)), "labels must be 0"),
    ],
)
def test_bad_maps(masks: Any, maps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aupimo(masks, maps)


@pytest.mark.parametrize("bounds", [(0, 1e-4), (1e-4, 1e-5), (1e-3, 1e-3), (0.1, 1.1)])
def test_bounds_out_of_range(bounds: tuple[float, float]) -> None:
    masks, maps = pictures([5], [1], np.zeros((1, 4)))
    with pytest.raises(ValueError, match="fpr_bounds"):
        aupimo(masks, maps, bounds)
