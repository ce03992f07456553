"""From distances to scores and maps, against PyTorch, SciPy and the formulas themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from fapm.memory.geometry import smoothing_matrix, upsample_index
from fapm.memory.scoring import anomaly_map, fill_ranks, image_score, unify

SEEDS = st.integers(0, 2**32 - 1)


def ascending(seed: int, *shape: int) -> NDArray[np.float64]:
    return np.sort(np.random.default_rng(seed).gamma(3, size=shape), axis=-1)


def score_of(unified: NDArray[np.float64]) -> tuple[list[float], list[int]]:
    scores, cells = image_score(torch.from_numpy(unified))
    return scores.tolist(), cells.tolist()


# Layers onto one grid


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    onto=st.tuples(st.integers(1, 24), st.integers(1, 24)),
)
def test_nearest_upsampling_takes_the_cell_that_lies_there(
    size: tuple[int, int], onto: tuple[int, int]
) -> None:
    numbers = np.arange(size[0] * size[1]).reshape(size)
    expected = reference.nearest_upsampling(numbers, *onto)
    np.testing.assert_array_equal(upsample_index(size, onto).reshape(onto), expected)


@settings(deadline=None)
@given(size=st.integers(1, 8), times=st.integers(1, 4))
def test_nearest_upsampling_is_pytorchs(size: int, times: int) -> None:
    onto = size * times
    numbers = torch.arange(size * size, dtype=torch.float64).reshape(1, 1, size, size)
    expected = F.interpolate(numbers, size=(onto, onto), mode="nearest").flatten()
    assert upsample_index((size, size), (onto, onto)).tolist() == expected.tolist()


def test_row_order_repeats_cells_as_the_authors_code_does() -> None:
    rows = upsample_index((2, 2), (4, 4), "row-order").reshape(4, 4).tolist()
    assert rows == [[0] * 4, [1] * 4, [2] * 4, [3] * 4]
    # What it should have been, and what the default is:
    rows = upsample_index((2, 2), (4, 4)).reshape(4, 4).tolist()
    assert rows == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


@pytest.mark.parametrize(
    ("size", "onto"), [((14, 14), (28, 28)), ((3, 5), (6, 10)), ((2, 3), (2, 3))]
)
def test_row_order_equals_repetition(size: tuple[int, int], onto: tuple[int, int]) -> None:
    numbers = np.arange(size[0] * size[1]).reshape(size)
    expected = reference.row_order_upsampling(numbers, *onto)
    index = upsample_index(size, onto, "row-order").reshape(onto)
    np.testing.assert_array_equal(index, expected)


@pytest.mark.parametrize("mode", ["nearest", "row-order"])
@pytest.mark.parametrize("finest_first", [True, False])
def test_layers_are_summed_rank_by_rank_on_the_finest_grid(mode: str, finest_first: bool) -> None:
    layers = [ascending(0, 2, 6, 6, 4), ascending(1, 2, 3, 3, 4), ascending(2, 2, 6, 6, 4)]
    layers = layers if finest_first else layers[::-1]
    unified = unify(
        [torch.from_numpy(layer).flatten(1, 2) for layer in layers],
        [torch.from_numpy(upsample_index(layer.shape[1:3], (6, 6), mode)) for layer in layers],
    )
    expected = reference.unify(layers, mode)
    np.testing.assert_allclose(unified.numpy().reshape(expected.shape), expected, rtol=1e-12)


# Ranks without a key


def test_a_missing_rank_takes_the_last_one_present() -> None:
    distances = torch.tensor([[1.0, 2.0, math.inf, math.inf], [0.0, 3.0, 4.0, 5.0]])
    assert fill_ranks(distances).tolist() == [[1.0, 2.0, 2.0, 2.0], [0.0, 3.0, 4.0, 5.0]]


def test_a_cell_without_any_key_counts_as_distance_0() -> None:
    assert fill_ranks(torch.full((1, 3), math.inf)).tolist() == [[0.0, 0.0, 0.0]]


@settings(deadline=None)
@given(seed=SEEDS, missing=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_filled_ranks_equal_the_rule(seed: int, missing: list[int]) -> None:
    distances = ascending(seed, len(missing), 5)
    for row, count in zip(distances, missing, strict=True):
        row[5 - count :] = np.inf
    filled = fill_ranks(torch.from_numpy(distances)).numpy()
    np.testing.assert_array_equal(filled, reference.fill_ranks(distances))


def test_a_distance_that_is_not_a_number_does_not_pass_for_a_normal_one() -> None:
    # A broken encoder or memory must not make every part good.
    unified = fill_ranks(torch.tensor([[[0.1, 0.2], [math.nan, math.nan]]]))
    scores, _ = image_score(unified)
    assert not scores.item() < 1.0


# Image score


@settings(deadline=None)
@given(seed=SEEDS, cells=st.integers(1, 30), neighbours=st.integers(1, 9))
def test_image_score_is_the_formula_at_the_worst_cell(
    seed: int, cells: int, neighbours: int
) -> None:
    unified = ascending(seed, 3, cells, neighbours)
    expected = [reference.image_score(one) for one in unified]
    scores, worst = score_of(unified)
    assert worst == [cell for _, cell in expected]
    assert scores == pytest.approx([score for score, _ in expected], rel=1e-12)


def test_image_score_by_hand() -> None:
    # exp(1) : exp(1) : exp(1) : exp(1 + ln 2) = 1 : 1 : 1 : 2, so the largest share is 2 / 5.
    worst = [1.0, 1.0, 1.0, 1.0 + math.log(2)]
    scores, cells = score_of(np.array([[[0.9] * 4, worst, [0.0] * 4]]))
    assert cells == [1]
    assert scores == pytest.approx([3 / 5])


def test_equal_neighbours_weigh_as_much_as_there_are_of_them() -> None:
    assert score_of(np.full((1, 2, 4), 8.0))[0] == pytest.approx([6.0])


@settings(deadline=None)
@given(
    seed=SEEDS,
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    neighbours=st.integers(1, 4),
    sigma=st.floats(0.3, 3),
)
def test_the_score_is_the_highest_smoothed_distance(
    seed: int, size: tuple[int, int], neighbours: int, sigma: float
) -> None:
    unified = ascending(seed, 2, *size, neighbours)
    flat = torch.from_numpy(unified).flatten(1, 2)
    smooth = [torch.from_numpy(smoothing_matrix(edge, edge, sigma)) for edge in size]
    levels = anomaly_map(flat, size, (smooth[0], smooth[1])).flatten(1)
    scores, _ = image_score(flat, levels)
    expected = [reference.image_score(one, sigma)[0] for one in unified]
    assert scores.tolist() == pytest.approx(expected, rel=1e-9)


def test_a_cell_that_nothing_around_it_confirms_does_not_decide() -> None:
    cells = np.zeros((9, 9))
    cells[2, 2] = 3.0  # alone, and higher than
    cells[5:8, 5:8] = 2.0  # a patch
    assert reference.image_score(cells[..., None])[1] == 2 * 9 + 2
    smooth = torch.from_numpy(smoothing_matrix(9, 9, 1.0))
    flat = torch.from_numpy(cells).reshape(1, 81, 1)
    _, worst = image_score(flat, anomaly_map(flat, (9, 9), (smooth, smooth)).flatten(1))
    assert worst.tolist() == [6 * 9 + 6]


def test_one_neighbour_weighs_nothing() -> None:
    assert score_of(np.array([[[3.0], [5.0]]])) == ([5.0], [1])


def test_distances_far_beyond_the_unit_do_not_overflow() -> None:
    scores, _ = score_of(np.array([[[1e4, 1e4, 1e4, 1e4]]]))
    assert scores == pytest.approx([7500.0])


def test_of_equally_bad_cells_the_first_is_named() -> None:
    assert score_of(np.ones((1, 5, 2)))[1] == [0]


@settings(deadline=None)
@given(seed=SEEDS, more=st.floats(0, 20))
def test_a_defect_farther_from_all_keys_alike_scores_higher(seed: int, more: float) -> None:
    near = ascending(seed, 1, 4, 4)
    far = near + more
    assert score_of(far)[0][0] >= score_of(near)[0][0] * (1 - 1e-12)


# Anomaly map


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.9, 4.0, 17.3])
@pytest.mark.parametrize(
    ("cells", "pixels"), [(28, 224), (14, 224), (7, 56), (1, 9), (2, 33), (40, 40), (16, 70)]
)
def test_smoothing_is_pytorchs_bilinear_and_scipys_gaussian(
    cells: int, pixels: int, sigma: float
) -> None:
    """Row after row of an identity, so that every weight is compared."""
    unit = torch.eye(cells, dtype=torch.float64)[:, None]
    upsampled = F.interpolate(unit, size=pixels, mode="linear", align_corners=False)[:, 0].numpy()
    if sigma:
        upsampled = scipy.ndimage.gaussian_filter1d(
            upsampled, sigma, axis=1, mode="reflect", truncate=4
        )
    np.testing.assert_allclose(smoothing_matrix(cells, pixels, sigma), upsampled.T, atol=1e-12)


@settings(deadline=None)
@given(cells=st.integers(1, 40), pixels=st.integers(1, 120), sigma=st.floats(0, 20))
def test_a_flat_map_stays_flat(cells: int, pixels: int, sigma: float) -> None:
    matrix = smoothing_matrix(cells, pixels, sigma)
    assert matrix.shape == (pixels, cells)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-9)


@settings(deadline=None)
@given(cells=st.integers(1, 20), pixels=st.integers(1, 80), sigma=st.floats(0, 10))
def test_smoothing_is_the_same_from_both_ends(cells: int, pixels: int, sigma: float) -> None:
    matrix = smoothing_matrix(cells, pixels, sigma)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize(
    ("size", "pixels", "sigma"), [((7, 7), 56, 1.0), ((6, 9), 48, 0.0), ((28, 28), 112, 2.0)]
)
def test_a_map_is_bilinear_then_gaussian_of_the_nearest_distances(
    size: tuple[int, int], pixels: int, sigma: float
) -> None:
    unified = ascending(3, 2, size[0] * size[1], 4)
    smooth = [torch.from_numpy(smoothing_matrix(n, pixels, sigma)) for n in size]
    maps = anomaly_map(torch.from_numpy(unified), size, (smooth[0], smooth[1])).numpy()
    expected = [reference.anomaly_map(one[:, 0].reshape(size), pixels, sigma) for one in unified]
    np.testing.assert_allclose(maps, expected, rtol=1e-9)


def test_a_map_of_two_dimensions_equals_pytorch_and_scipy() -> None:
    cells = ascending(4, 1, 9, 1).reshape(3, 3)
    upsampled = F.interpolate(
        torch.from_numpy(cells)[None, None], size=(30, 30), mode="bilinear", align_corners=False
    )[0, 0]
    expected = scipy.ndimage.gaussian_filter(upsampled.numpy(), 3, mode="reflect", truncate=4)
    smooth = torch.from_numpy(smoothing_matrix(3, 30, 3))
    maps = anomaly_map(torch.from_numpy(cells.reshape(1, 9, 1)), (3, 3), (smooth, smooth))
    np.testing.assert_allclose(maps[0].numpy(), expected, rtol=1e-9)
