"""Cells and patches: nothing of the picture is lost, counted twice or moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import reference
from fapm.memory.geometry import (
    cells_by_patch,
    finest,
    neighbour_patches,
    patch_grid,
    patch_of_cell,
)
from fapm.memory.patches import aggregate, concatenate_layers, patch_vectors

EDGES = st.integers(1, 40)
GRIDS = st.integers(1, 64)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 1), (3, 4, 1, 6), (1, 8, 28, 28)])
def test_aggregate_is_the_mean_of_nine_with_zeros_beyond_the_border(
    shape: tuple[int, ...],
) -> None:
    features = np.random.default_rng(0).normal(size=shape)
    pooled = aggregate(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(pooled, reference.average_pool(features), rtol=1e-12, atol=1e-15)


def test_aggregate_counts_the_zeros_beyond_the_border() -> None:
    pooled = aggregate(torch.ones(1, 1, 3, 3))[0, 0]
    expected = torch.tensor([[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]) / 9
    torch.testing.assert_close(pooled, expected)


@settings(deadline=None)
@given(height=EDGES, width=EDGES, grid=GRIDS)
@example(height=28, width=28, grid=7)
@example(height=14, width=14, grid=7)
@example(height=16, width=16, grid=7)
def test_patch_of_cell_equals_the_rule_in_exact_arithmetic(
    height: int, width: int, grid: int
) -> None:
    numbers = patch_of_cell(height, width, grid)
    np.testing.assert_array_equal(numbers, reference.patch_numbers(height, width, grid))


@settings(deadline=None)
@given(height=EDGES, width=EDGES, grid=GRIDS)
def test_every_cell_belongs_to_exactly_one_patch_and_no_patch_is_empty(
    height: int, width: int, grid: int
) -> None:
    patches = cells_by_patch(height, width, grid)
    rows, columns = patch_grid(height, width, grid)
    assert len(patches) == rows * columns
    assert all(len(cells) for cells in patches)
    assert sorted(np.concatenate(patches).tolist()) == list(range(height * width))


@settings(deadline=None)
@given(height=EDGES, width=EDGES, grid=GRIDS)
def test_patches_are_rectangles_whose_sizes_differ_by_at_most_one_cell_per_axis(
    height: int, width: int, grid: int
) -> None:
    heights, widths = set(), set()
    for cells in cells_by_patch(height, width, grid):
        rows, columns = cells // width, cells % width
        tall, wide = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert len(cells) == tall * wide
        heights.add(tall)
        widths.add(wide)
    assert max(heights) - min(heights) <= 1
    assert max(widths) - min(widths) <= 1


@pytest.mark.parametrize(
    ("cells", "grid", "size"), [(28, 7, 4), (14, 7, 2), (7, 7, 1), (28, 1, 28)]
)
def test_where_the_grid_divides_the_map_patches_are_the_papers(
    cells: int, grid: int, size: int
) -> None:
    blocks = np.kron(np.arange(grid * grid).reshape(grid, grid), np.ones((size, size), int))
    np.testing.assert_array_equal(patch_of_cell(cells, cells, grid), blocks)


def test_the_finest_map_has_the_most_cells_and_is_the_first_of_several() -> None:
    assert finest([(5, 2), (3, 4), (2, 6), (11, 1)]) == (3, 4)


def test_a_grid_larger_than_the_map_has_one_patch_per_cell() -> None:
    assert patch_of_cell(2, 3, 7).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert patch_grid(2, 3, 7) == (2, 3)


def test_a_grid_larger_than_the_map_along_one_axis_only() -> None:
    assert patch_of_cell(4, 2, 3).tolist() == [[0, 1], [0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_patch_vectors_come_picture_after_picture_and_cell_after_cell(
    memory_format: torch.memory_format,
) -> None:
    features = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    cells = np.array([1, 2, 6, 7])
    vectors = patch_vectors(features.contiguous(memory_format=memory_format), cells)
    expected = [
        features[n, :, y, x].tolist() for n in (0, 1) for y, x in ((0, 1), (0, 2), (1, 1), (1, 2))
    ]
    assert vectors.tolist() == expected


@settings(deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), radius=st.integers(0, 9))
def test_neighbours_are_those_within_the_radius_along_both_axes(
    rows: int, columns: int, radius: int
) -> None:
    memory = reference.Memory(np.empty((0, 0), int), [], [], [], [], 1.0, rows, columns)
    expected = [reference.searched_patches(memory, p, radius) for p in range(rows * columns)]
    assert neighbour_patches(rows, columns, radius) == expected


def test_radius_0_searches_the_own_patch_alone() -> None:
    assert neighbour_patches(2, 3, 0) == [[0], [1], [2], [3], [4], [5]]


def test_concatenated_layers_keep_the_finest_maps_and_repeat_the_coarser() -> None:
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(2, 3, 6, 6)), rng.normal(size=(2, 5, 3, 3))]
    for order in (layers, layers[::-1]):
        joined = concatenate_layers([torch.from_numpy(layer) for layer in order]).numpy()
        np.testing.assert_array_equal(joined, reference.concatenate(order))


def test_concatenated_layers_of_sizes_that_do_not_divide() -> None:
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(1, 2, 7, 7)), rng.normal(size=(1, 1, 4, 4))]
    joined = concatenate_layers([torch.from_numpy(layer) for layer in layers]).numpy()
    np.testing.assert_array_equal(joined, reference.concatenate(layers))
