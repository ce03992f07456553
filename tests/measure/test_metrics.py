"""Metrics against scikit-learn, and against the definitions written as plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fapm.measure.metrics import (
    Counts,
    aupro,
    auroc,
    average_precision,
    counts_at,
    f1_max,
    image_metrics,
    pixel_metrics,
    pro_curve,
    roc_curve,
)

Arrays = tuple[NDArray[Any], NDArray[Any]]


@st.composite
def labelled_scores(draw: st.DrawFn) -> Arrays:
    """Both classes, float32 or float64 scores, few distinct values or any."""
    size = draw(st.integers(2, 40))
    labels = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    labels[0], labels[1] = False, True
    any_float = st.floats(-(2.0**100), 2.0**100, width=32)
    value = draw(st.sampled_from([st.integers(-3, 3).map(float), any_float]))
    scores = draw(st.lists(value, min_size=size, max_size=size))
    return np.array(labels), np.array(scores, dtype=draw(st.sampled_from(["float32", "float64"])))


@st.composite
def small_maps(draw: st.DrawFn) -> Arrays:
    """Up to three masks of at most 6 x 6 with at least one defect, maps with many ties."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(2, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = rng.random(shape) < draw(st.sampled_from([0.1, 0.3, 0.6]))
    masks[0, 0, :2] = True, False
    maps = rng.integers(0, draw(st.sampled_from([2, 6, 1000])), shape)
    return masks, maps.astype(draw(st.sampled_from([np.float32, np.float64])))


def random_maps(count: int, size: int, levels: int | None = None) -> Arrays:
    """Maps that see the (square) defects well but not perfectly; every second picture is good."""
    rng = np.random.default_rng(count + size)
    masks = np.zeros((count, size, size), dtype=bool)
    for mask in masks[::2]:
        for _ in range(3):
            y, x = rng.integers(0, size, 2)
            side = int(rng.integers(1, size // 4))
            mask[y : y + side, x : x + side] = True
    maps = rng.normal(size=masks.shape) + 1.5 * masks
    if levels is not None:
        maps = np.round(maps * levels / 6)
    return masks, maps.astype(np.float32)


def reference_f1(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    precision, recall, _ = reference.precision_recall_curve(labels, scores)
    total = precision + recall
    return float(np.divide(2 * precision * recall, total, where=total > 0, out=total * 0).max())


def brute_force_pro(masks: NDArray[Any], maps: NDArray[Any]) -> tuple[list[float], list[float]]:
    """Rates at every threshold, one after the other."""
    regions = []
    for picture, mask in enumerate(masks):
        found, count = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(picture, found == number) for number in range(1, count + 1)]
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        alarm = maps >= threshold
        fpr.append(float(alarm[~masks].mean()))
        pro.append(float(np.mean([alarm[picture][region].mean() for picture, region in regions])))
    return fpr, pro


def brute_force_aupro(masks: NDArray[Any], maps: NDArray[Any], max_fpr: float) -> float:
    """The trapezoids of the whole curve, the one that crosses the limit cut there."""
    fpr, pro = brute_force_pro(masks, maps)
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr, fpr[1:], pro, pro[1:], strict=False):
        if x0 < max_fpr and x1 > x0:
            end = min(x1, max_fpr)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / max_fpr


# --- pictures -------------------------------------------------------------------------------------


@given(labelled_scores())
def test_image_metrics_agree_with_scikit_learn(data: Arrays) -> None:
    labels, scores = data
    metrics = image_metrics(labels, scores)
    assert metrics.auroc == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-12)
    expected_ap = reference.average_precision_score(labels, scores)
    assert metrics.ap == pytest.approx(expected_ap, abs=1e-12)
    assert metrics.f1_max == pytest.approx(reference_f1(labels, scores), abs=1e-12)


@given(labelled_scores())
def test_shared_and_single_functions_give_the_same(data: Arrays) -> None:
    metrics = image_metrics(*data)
    assert metrics.auroc == auroc(*data)
    assert metrics.ap == average_precision(*data)
    assert (metrics.f1_max, metrics.f1_threshold) == f1_max(*data)


@given(labelled_scores())
def test_scores_above_the_f1_threshold_reproduce_f1(data: Arrays) -> None:
    labels, scores = data
    value, threshold = f1_max(labels, scores)
    # In the scores' precision, as a caller compares, and in float64, as counts_at does.
    assert reference.f1_score(labels, scores > threshold) == pytest.approx(value, abs=1e-12)
    counts = counts_at(labels, scores, threshold)
    wrong = counts.false_positives + counts.false_negatives
    assert 2 * counts.true_positives / (2 * counts.true_positives + wrong) == pytest.approx(value)


@given(labelled_scores())
def test_only_the_order_of_the_scores_matters(data: Arrays) -> None:
    labels, scores = data
    ranks = np.unique(scores, return_inverse=True)[1]
    before, after = image_metrics(labels, scores), image_metrics(labels, np.exp(ranks / 5) - 7)
    assert (before.auroc, before.ap, before.f1_max) == (after.auroc, after.ap, after.f1_max)


@given(labelled_scores())
def test_swapping_the_classes_and_the_sign_leaves_auroc(data: Arrays) -> None:
    labels, scores = data
    assert auroc(~labels, -scores) == pytest.approx(auroc(labels, scores), abs=1e-12)


@given(labelled_scores())
def test_roc_curve_is_the_whole_curve_without_points_on_lines(data: Arrays) -> None:
    labels, scores = data
    fpr, tpr = roc_curve(labels, scores)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    all_fpr, all_tpr, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    everything = list(zip(all_fpr, all_tpr, strict=True))
    kept = [
        point
        for before, point, after in zip(everything, everything[1:], everything[2:], strict=False)
        if abs(
            (point[0] - before[0]) * (after[1] - point[1])
            - (after[0] - point[0]) * (point[1] - before[1])
        )
        > 1e-9
    ]
    expected = np.array([everything[0], *kept, everything[-1]])
    np.testing.assert_allclose(np.stack([fpr, tpr], axis=1), expected, atol=1e-12)


@pytest.mark.parametrize("levels", [2, 20, None])
def test_many_scores_agree_with_scikit_learn(levels: int | None) -> None:
    masks, maps = random_maps(4, 50, levels)
    labels, scores = masks.ravel(), maps.ravel()
    assert auroc(labels, scores) == pytest.approx(reference.roc_auc_score(labels, scores))
    expected = reference.average_precision_score(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(expected)
    assert f1_max(labels, scores)[0] == pytest.approx(reference_f1(labels, scores))


def test_perfect_inverted_and_constant_scores() -> None:
    labels = [0, 0, 0, 1]
    perfect = image_metrics(labels, [1, 2, 3, 6])
    assert (perfect.auroc, perfect.ap, perfect.f1_max, perfect.f1_threshold) == (1, 1, 1, 4.5)
    assert auroc(labels, [3, 2, 1, 0]) == 0
    assert average_precision(labels, [3, 2, 1, 0]) == 0.25
    assert auroc(labels, [5, 5, 5, 5]) == 0.5


def test_f1_threshold_is_the_highest_of_equally_good_ones() -> None:
    # Above 8: 1 caught, 0 false alarms. Above 2: 2 caught, 2 false alarms. F1 is 2/3 both times.
    assert f1_max([1, 0, 0, 1, 0], [9, 7, 6, 5, 0]) == (2 / 3, 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_f1_threshold_between_neighbouring_floats(dtype: type[np.floating[Any]]) -> None:
    odd = np.nextafter(dtype(1), dtype(2))
    for low, high in [(dtype(1), odd), (odd, np.nextafter(odd, dtype(2)))]:
        scores = np.array([low, high])
        threshold = f1_max([0, 1], scores)[1]
        assert (scores > threshold).tolist() == [False, True]


def test_f1_threshold_when_all_scores_must_be_defects() -> None:
    scores = np.zeros(3, dtype=np.float32)
    value, threshold = f1_max([0, 1, 1], scores)
    assert value == pytest.approx(0.8)
    assert (scores > threshold).all()


def test_counts() -> None:
    counts = counts_at([1, 1, 1, 0, 0], [0.9, 0.5, 0.1, 0.5, 0.6], 0.5)
    assert counts == Counts(
        true_positives=1, false_positives=1, true_negatives=1, false_negatives=2
    )
    assert (counts.defects, counts.good) == (3, 2)


def test_counts_need_only_one_class_and_compare_in_float64() -> None:
    scores = np.array([0.1], dtype=np.float32)  # 0.100000001...
    assert counts_at([False], scores, 0.1) == Counts(0, 1, 0, 0)
    assert counts_at([], [], 0.1) == Counts(0, 0, 0, 0)


@pytest.mark.parametrize("metric", [auroc, average_precision, f1_max, roc_curve, image_metrics])
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0], [1.0, 2.0], "none is defect"),
        ([True, True], [1.0, 2.0], "none is good"),
        ([], [], "both classes"),
        ([0, 1], [1.0, float("nan")], "finite"),
        ([0, 1], [1.0, float("inf")], "finite"),
        ([0, 1], [1.0, 2.0, 3.0], r"\(2,\) and \(3,\)"),
        ([0, 255], [1.0, 2.0], r"0 \(good\) or 1 \(defect\)"),
        ([-1, 1], [1.0, 2.0], r"0 \(good\) or 1 \(defect\)"),
    ],
)
def test_bad_input(metric: Any, labels: Any, scores: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(labels, scores)


# --- pixels and regions ---------------------------------------------------------------------------


@given(small_maps())
def test_pixel_metrics_are_the_image_metrics_of_the_pixels(data: Arrays) -> None:
    masks, maps = data
    pixels, images = pixel_metrics(masks, maps), image_metrics(masks.ravel(), maps.ravel())
    assert (pixels.auroc, pixels.ap) == (images.auroc, images.ap)
    assert (pixels.f1_max, pixels.f1_threshold) == (images.f1_max, images.f1_threshold)
    assert pixels.aupro == aupro(masks, maps)


@given(small_maps(), st.sampled_from([0.05, 0.3, 0.5, 1.0]))
@settings(deadline=None)
def test_aupro_agrees_with_brute_force(data: Arrays, max_fpr: float) -> None:
    assert aupro(*data, max_fpr) == pytest.approx(brute_force_aupro(*data, max_fpr), abs=1e-12)


@given(small_maps())
@settings(deadline=None)
def test_pro_curve_passes_through_every_threshold(data: Arrays) -> None:
    fpr, pro = pro_curve(*data)
    assert (fpr[0], pro[0], fpr[-1], pro[-1]) == (0, 0, 1, 1)
    for x, y in zip(*brute_force_pro(*data), strict=True):
        # At a vertical step the curve holds all heights between its two ends.
        low = np.interp(x - 1e-12, fpr, pro) if x > 0 else 0.0
        high = np.interp(x + 1e-12, fpr, pro) if x < 1 else 1.0
        assert low - 1e-9 <= y <= high + 1e-9


@pytest.mark.parametrize("levels", [3, 40, None])
def test_aupro_of_larger_maps_agrees_with_brute_force(levels: int | None) -> None:
    masks, maps = random_maps(3, 20, levels)
    assert aupro(masks, maps) == pytest.approx(brute_force_aupro(masks, maps, 0.3))


@given(small_maps())
def test_aupro_does_not_change_with_a_monotone_transform(data: Arrays) -> None:
    masks, maps = data
    assert aupro(masks, np.exp(maps.astype(np.float64) / 100) - 3) == aupro(masks, maps)


def test_perfect_inverted_and_constant_maps() -> None:
    masks, _ = random_maps(4, 30)
    perfect = pixel_metrics(masks, masks.astype(np.float32))
    assert (perfect.auroc, perfect.ap, perfect.f1_max) == (1, 1, 1)
    assert perfect.f1_threshold == 0.5
    assert perfect.aupro == pytest.approx(1)
    assert aupro(masks, ~masks) == 0
    assert aupro(masks, np.ones(masks.shape)) == pytest.approx(0.15)


def test_small_regions_count_as_much_as_large_ones() -> None:
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[0, :4, :4] = True  # 16 pixels, found
    masks[0, 7, 7] = True  # one pixel at the border, not found
    masks[1, 0, 3:6] = True  # 3 pixels of another picture, found
    maps = masks.astype(np.float32)
    maps[0, 7, 7] = -1
    # 2 of 3 regions at once; the last of all.
    assert aupro(masks, maps, 0.3) == pytest.approx(2 / 3)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    masks = np.zeros((1, 6, 6), dtype=bool)
    masks[0, [1, 2, 3], [1, 2, 3]] = True
    masks[0, 5, 0] = True
    maps = np.zeros((1, 6, 6))
    maps[0, [1, 2, 3], [1, 2, 3]] = 1
    maps[0, 5, 0] = -1
    # Were the diagonal three regions, three of four would be found.
    assert aupro(masks, maps) == pytest.approx(1 / 2)


def test_good_pictures_count_only_as_false_alarms() -> None:
    masks, maps = random_maps(4, 30)
    alone = aupro(masks[::2], maps[::2])
    silent, loud = np.full_like(maps[::2], -99), np.full_like(maps[::2], 99)
    both = np.concatenate([masks[::2], np.zeros_like(masks[::2])])
    assert aupro(both, np.concatenate([maps[::2], silent])) > alone
    assert aupro(both, np.concatenate([maps[::2], loud])) == 0


def test_masks_of_zeros_and_ones_are_masks() -> None:
    masks, maps = random_maps(2, 20)
    assert pixel_metrics(masks.astype(np.uint8), maps) == pixel_metrics(masks, maps)


def test_a_hundred_maps_of_224() -> None:
    masks, maps = random_maps(100, 224)
    metrics = pixel_metrics(masks, maps)
    assert metrics.auroc == pytest.approx(0.856, abs=0.01)  # Phi(1.5 / sqrt(2))
    assert 0.3 < metrics.aupro < metrics.auroc


@pytest.mark.parametrize("metric", [aupro, pro_curve, pixel_metrics])
@pytest.mark.parametrize(
    ("masks", "maps", "message"),
    [
        (np.ones((2, 3), bool), np.ones((2, 3)), r"\[n, H, W\]"),
        (np.ones((1, 2, 3), bool), np.ones((1, 2, 4)), "same shape"),
        (np.zeros((1, 2, 3), bool), np.ones((1, 2, 3)), "none is defect"),
        (np.ones((1, 2, 3), bool), np.ones((1, 2, 3)), "none is good"),
        (np.eye(2, dtype=bool)[None], np.full((1, 2, 2), np.nan), "finite"),
        (255 * np.eye(2, dtype=np.uint8)[None], np.ones((1, 2, 2)), "labels must be 0"),
    ],
)
def test_bad_maps(metric: Any, masks: Any, maps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(masks, maps)


@pytest.mark.parametrize("max_fpr", [0, -0.1, 1.1, float("nan")])
def test_aupro_limit_out_of_range(max_fpr: float) -> None:
    with pytest.raises(ValueError, match="max_fpr"):
        aupro(*random_maps(1, 8), max_fpr)
