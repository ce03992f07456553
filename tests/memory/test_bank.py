"""Memory banks: what is memorised, where it came from, and what is found again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from fapm.errors import ConfigError
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import cells_by_patch
from fapm.memory.memorise import budgets, build_bank
from fapm.memory.patches import patch_vectors
from fapm.memory.search import nearest_keys, pairwise_squared

Floats = NDArray[np.float32]

SEEDS = st.integers(0, 2**32 - 1)
KNOBS: dict[str, Any] = {
    "grid": 3,
    "ratio": 0.1,
    "sampling": "equal-radius",
    "distance_unit": "median-radius",
    "far_threshold": 0.5,
}


def normal_features(
    seed: int, pictures: int = 12, channels: int = 6, height: int = 6, width: int = 6
) -> Floats:
    """Float32 features whose spread grows from the top of the map to its bottom."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(0.5, 3, height)[:, None]
    features = 2 + spread * rng.normal(size=(pictures, channels, height, width))
    return features.astype(np.float32)


def bank_of(features: Floats, **knobs: Any) -> MemoryBank:
    return memorised(torch.from_numpy(features), **{**KNOBS, **knobs})


def memorised(
    features: torch.Tensor, *, grid: int, ratio: float, max_keys: int | None = None, **knobs: Any
) -> MemoryBank:
    size = (features.shape[2], features.shape[3])
    cells = cells_by_patch(*size, grid)
    (budget,) = budgets([size], len(features), grid=grid, ratio=ratio, max_keys=max_keys)
    return build_bank(
        lambda patch: patch_vectors(features, cells[patch]),
        budget,
        size,
        grid=grid,
        **knobs,
    )


def memory_of(features: Floats, **knobs: Any) -> reference.Memory:
    return reference.memorise(features.astype(np.float64), **{**KNOBS, **knobs})


def by_patch(values: NDArray[Any], bank: MemoryBank) -> list[NDArray[Any]]:
    return np.split(values, bank.offsets[1:-1])


def search(bank: MemoryBank, features: Floats, **knobs: Any) -> tuple[Floats, NDArray[np.int64]]:
    distances, keys = nearest_keys(torch.from_numpy(features), bank, **knobs)
    return distances.numpy(), keys.numpy()


# What is memorised


@pytest.mark.parametrize("distance_unit", ["median-radius", "one"])
@pytest.mark.parametrize("sampling", ["none", "near-far", "equal-radius"])
@pytest.mark.parametrize(
    ("height", "width", "grid"), [(6, 6, 3), (6, 6, 1), (5, 7, 3), (4, 4, 7), (8, 3, 2)]
)
def test_a_bank_equals_the_reference_key_by_key(
    height: int, width: int, grid: int, sampling: str, distance_unit: str
) -> None:
    features = normal_features(height * width, height=height, width=width)
    knobs = {"grid": grid, "sampling": sampling, "distance_unit": distance_unit}
    bank, memory = bank_of(features, **knobs), memory_of(features, **knobs)
    assert bank.offsets.tolist() == np.cumsum([0, *map(len, memory.keys)]).tolist()
    assert bank.pictures.tolist() == np.concatenate(memory.pictures).tolist()
    assert bank.cells.tolist() == np.concatenate(memory.cells).tolist()
    np.testing.assert_array_equal(bank.keys, np.concatenate(memory.keys))
    np.testing.assert_allclose(bank.radii, memory.radii, rtol=1e-5)
    assert bank.unit == pytest.approx(memory.unit, rel=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_key_is_the_vector_of_the_picture_and_cell_it_names(
    memory_format: torch.memory_format,
) -> None:
    features = torch.from_numpy(normal_features(1)).contiguous(memory_format=memory_format)
    bank = memorised(features, **KNOBS)
    for key, picture, cell in zip(bank.keys, bank.pictures, bank.cells, strict=True):
        at = features[picture, :, cell // bank.width, cell % bank.width]
        np.testing.assert_array_equal(key, at.numpy())


def test_a_key_lies_in_the_patch_that_owns_it() -> None:
    bank = bank_of(normal_features(2, height=7, width=5), grid=3)
    numbers = reference.patch_numbers(7, 5, 3).ravel()
    for patch, cells in enumerate(by_patch(bank.cells, bank)):
        assert len(cells)
        assert set(numbers[cells]) == {patch}


def test_without_adaptive_sampling_every_patch_has_its_share() -> None:
    bank = bank_of(normal_features(3), sampling="none", ratio=0.1)
    assert np.diff(bank.offsets).tolist() == [5] * 9  # ceil(0.1 * 12 pictures * 4 cells)


def test_near_far_with_unit_1_doubles_the_patches_of_wide_spread_alone() -> None:
    features = normal_features(4)
    features[:, :, :2] = 2 + 0.01 * (features[:, :, :2] - 2)  # the upper patches hardly vary
    bank = bank_of(features, sampling="near-far", distance_unit="one")
    assert bank.unit == 1.0
    assert np.diff(bank.offsets).tolist() == [5, 5, 5, 10, 10, 10, 10, 10, 10]


def test_equal_radius_keeps_as_many_keys_as_plain_sampling_and_spreads_them_better() -> None:
    features = normal_features(5)
    plain, equal = bank_of(features, sampling="none"), bank_of(features)
    assert len(equal.keys) == len(plain.keys)
    assert equal.unit == plain.unit
    assert equal.radii.max() < plain.radii.max()


def test_the_unit_is_the_median_radius_at_the_base_ratio_whatever_the_sampling() -> None:
    features = normal_features(6)
    base = bank_of(features, sampling="none")
    assert base.unit == pytest.approx(float(np.median(base.radii)), rel=1e-6)
    for sampling in ("near-far", "equal-radius"):
        assert bank_of(features, sampling=sampling).unit == base.unit


def test_one_picture_is_enough() -> None:
    bank = bank_of(normal_features(7, pictures=1))
    assert set(bank.pictures.tolist()) == {0}
    assert np.isfinite(search(bank, normal_features(8, pictures=1), count=4)[0][..., 0]).all()


@pytest.mark.parametrize("copies", [4, 40])
@pytest.mark.parametrize("distance_unit", ["median-radius", "one"])
def test_copies_of_one_picture_add_nothing_to_the_memory(distance_unit: str, copies: int) -> None:
    once = normal_features(9, pictures=1, channels=40)
    bank = bank_of(
        np.repeat(once, copies, axis=0), ratio=0.5, sampling="none", distance_unit=distance_unit
    )
    numbers = reference.patch_numbers(6, 6, 3).ravel()
    every_cell_once = [np.flatnonzero(numbers == patch).tolist() for patch in range(9)]
    assert [sorted(cells.tolist()) for cells in by_patch(bank.cells, bank)] == every_cell_once
    assert set(bank.pictures.tolist()) == {0}


def test_pictures_in_another_order_are_named_by_their_new_positions() -> None:
    features = normal_features(10)
    order = np.random.default_rng(0).permutation(len(features) - 1) + 1
    order = np.concatenate([[0], order])  # the first stays: it owns the first keys
    bank, shuffled = bank_of(features), bank_of(features[order])
    np.testing.assert_array_equal(shuffled.keys, bank.keys)
    np.testing.assert_array_equal(order[shuffled.pictures], bank.pictures)
    np.testing.assert_array_equal(shuffled.cells, bank.cells)


def test_building_leaves_the_features_as_they_were() -> None:
    features = normal_features(11)
    before = features.copy()
    bank_of(features)
    np.testing.assert_array_equal(features, before)


# No more keys than were asked for


@pytest.mark.parametrize("sampling", ["none", "near-far", "equal-radius"])
@pytest.mark.parametrize("max_keys", [9, 10, 20, 37, 44, 45, 46, 60, 1000])
def test_there_are_never_more_keys_than_max_keys(max_keys: int, sampling: str) -> None:
    """Plain sampling gives 45 here, near-far up to 90."""
    features = normal_features(12)
    bank = bank_of(features, sampling=sampling, max_keys=max_keys, distance_unit="one")
    free = bank_of(features, sampling=sampling, distance_unit="one")
    assert len(bank.keys) == min(max_keys, len(free.keys))
    assert np.diff(bank.offsets).min() >= 1


@pytest.mark.parametrize("sampling", ["none", "near-far", "equal-radius"])
def test_a_bound_that_binds_nothing_changes_nothing(sampling: str) -> None:
    features = normal_features(13)
    free = bank_of(features, sampling=sampling)
    for max_keys in (len(free.keys), 10**6):
        bank = bank_of(features, sampling=sampling, max_keys=max_keys)
        assert np.array_equal(bank.keys, free.keys)
        assert np.array_equal(bank.offsets, free.offsets)
        assert bank.unit == free.unit


@pytest.mark.parametrize("sampling", ["none", "near-far", "equal-radius"])
def test_fewer_keys_are_those_that_greedy_sampling_chooses_first(sampling: str) -> None:
    features = normal_features(14)
    few, many = (bank_of(features, sampling=sampling, max_keys=k) for k in (18, 10**6))
    for patch in range(9):
        short, long = (
            list(zip(*(by_patch(v, b)[patch].tolist() for v in (b.pictures, b.cells)), strict=True))
            for b in (few, many)
        )
        assert short == long[: len(short)]


def test_near_far_gives_far_patches_twice_the_keys_under_a_bound_too() -> None:
    features = normal_features(4)
    features[:, :, :2] = 2 + 0.01 * (features[:, :, :2] - 2)  # the upper patches hardly vary
    bank = bank_of(features, sampling="near-far", distance_unit="one", max_keys=36)
    counts = np.diff(bank.offsets).tolist()  # 4 and 8 before they are cut down from 60
    assert sum(counts) == 36
    assert set(counts[:3]) <= {2, 3}
    assert set(counts[3:]) <= {4, 5}


def test_layers_share_max_keys_in_proportion_to_their_plain_budgets() -> None:
    sizes = [(28, 28), (14, 14)]
    shared = budgets(sizes, 100, grid=7, ratio=0.1, max_keys=5000)
    # 7,840 and 1,960 without the bound; a key for each of the 98 patches comes first.
    assert [budget.most for budget in shared] == [3985, 1015]
    assert [sum(budget.shares) for budget in shared] == [3985, 1015]
    assert all(max(b.shares) - min(b.shares) <= 1 for b in shared)


@settings(deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=3),
    grid=st.integers(1, 8),
    pictures=st.integers(1, 400),
    ratio=st.sampled_from([0.001, 0.1, 1.0]),
    spare=st.integers(0, 5000),
)
def test_budgets_are_never_exceeded_and_leave_no_patch_without_a_key(
    sizes: list[tuple[int, int]], grid: int, pictures: int, ratio: float, spare: int
) -> None:
    free = budgets(sizes, pictures, grid=grid, ratio=ratio)
    max_keys = sum(len(budget.shares) for budget in free) + spare
    bound = budgets(sizes, pictures, grid=grid, ratio=ratio, max_keys=max_keys)
    plain = sum(sum(budget.shares) for budget in free)
    assert sum(budget.most or 0 for budget in bound) == max_keys
    assert sum(sum(budget.shares) for budget in bound) == min(max_keys, plain)
    for layer, unbound in zip(bound, free, strict=True):
        assert min(layer.shares) >= 1
        assert all(a <= b for a, b in zip(layer.shares, unbound.shares, strict=True))


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    grid=st.integers(1, 8),
    pictures=st.integers(1, 400),
    ratio=st.sampled_from([0.001, 0.1, 1.0]),
    spare=st.integers(0, 500),
)
def test_patches_without_inspected_cells_get_no_keys_and_the_others_all(
    seed: int, grid: int, pictures: int, ratio: float, spare: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes = [(12, 9), (6, 5)]
    inside = [rng.random(h * w) < 0.2 for h, w in sizes]
    for mask in inside:
        mask[rng.integers(len(mask))] = True
    free = budgets(sizes, pictures, grid=grid, ratio=ratio, inside=inside)
    counted = [
        [len(cells) for cells in cells_by_patch(*size, grid, mask)]
        for size, mask in zip(sizes, inside, strict=True)
    ]
    for layer, cells in zip(free, counted, strict=True):
        shares = [reference.share(ratio, pictures * n) for n in cells]
        assert list(layer.shares) == shares
    patches = sum(n > 0 for cells in counted for n in cells)
    bound = budgets(
        sizes, pictures, grid=grid, ratio=ratio, max_keys=patches + spare, inside=inside
    )
    plain = sum(sum(budget.shares) for budget in free)
    assert sum(sum(budget.shares) for budget in bound) == min(patches + spare, plain)
    for layer, cells in zip(bound, counted, strict=True):
        assert [share > 0 for share in layer.shares] == [n > 0 for n in cells]


def test_fewer_keys_than_patches_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^max_keys: 97 is too few for 98 patches in 2 layers"):
        budgets([(28, 28), (14, 14)], 10, grid=7, ratio=0.1, max_keys=97)
    with pytest.raises(ConfigError, match=r"^max_keys: 8 is too few for 9 patches in 1 layer,"):
        bank_of(normal_features(0), max_keys=8)


# What is found again


@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 4, 64])
@pytest.mark.parametrize(("height", "width", "grid"), [(6, 6, 3), (6, 6, 1), (5, 7, 3), (4, 4, 7)])
def test_nearest_keys_equal_brute_force(
    height: int, width: int, grid: int, count: int, radius: int
) -> None:
    """More ranks than keys included: 64 is more than any patch here has."""
    normal = normal_features(20, height=height, width=width)
    asked = normal_features(21, pictures=3, height=height, width=width)
    bank, memory = bank_of(normal, grid=grid), memory_of(normal, grid=grid)
    distances, keys = search(bank, asked, count=count, radius=radius)
    expected, rows = reference.nearest_distances(
        asked.astype(np.float64), memory, count=count, radius=radius
    )
    np.testing.assert_allclose(distances, expected, rtol=1e-4)
    known = np.isfinite(expected)
    np.testing.assert_array_equal(keys[known], rows[known])


@pytest.mark.parametrize("radius", [0, 1])
def test_without_a_picture_its_keys_do_not_count(radius: int) -> None:
    normal = normal_features(22)
    bank, memory = bank_of(normal), memory_of(normal)
    left_out = [3, 0, 7]
    distances, keys = search(
        bank, normal[left_out], count=3, radius=radius, without_pictures=left_out
    )
    expected, rows = reference.nearest_distances(
        normal[left_out].astype(np.float64),
        memory,
        count=3,
        radius=radius,
        without_pictures=left_out,
    )
    np.testing.assert_allclose(distances, expected, rtol=1e-4)
    known = np.isfinite(expected)
    np.testing.assert_array_equal(keys[known], rows[known])
    owners = bank.pictures[keys]
    assert not (known & (owners == np.array(left_out)[:, None, None])).any()


def test_leaving_out_a_picture_without_keys_changes_nothing() -> None:
    normal = normal_features(23)
    bank = bank_of(normal)
    asked = normal_features(24, pictures=2)
    for kept, left_out in zip(
        search(bank, asked, count=4),
        search(bank, asked, count=4, without_pictures=[len(normal)] * 2),
        strict=True,
    ):
        np.testing.assert_array_equal(kept, left_out)


def test_leaving_out_the_only_picture_leaves_nothing_to_find() -> None:
    normal = normal_features(25, pictures=1)
    distances, _ = search(bank_of(normal), normal, count=2, without_pictures=[0])
    assert np.isinf(distances).all()


def test_a_memorised_vector_is_found_at_distance_0() -> None:
    normal = normal_features(26)
    bank = bank_of(normal, ratio=1.0, sampling="none")
    distances, keys = search(bank, normal, count=1)
    # Float32 and |q|^2 + |k|^2 - 2qk: half the digits of the vectors' norms.
    assert distances.max() * bank.unit < 1e-3 * np.linalg.norm(normal, axis=1).max()
    cells = bank.cells[keys[..., 0]]
    np.testing.assert_array_equal(cells, np.tile(np.arange(36), (len(normal), 1)))
    pictures = bank.pictures[keys[..., 0]]
    np.testing.assert_array_equal(pictures, np.tile(np.arange(12)[:, None], (1, 36)))


@settings(deadline=None, max_examples=25)
@given(
    seed=SEEDS,
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    grid=st.integers(1, 8),
    pictures=st.integers(1, 5),
    radius=st.integers(0, 2),
)
def test_any_shape_of_map_is_searched_without_losing_a_cell(
    seed: int, size: tuple[int, int], grid: int, pictures: int, radius: int
) -> None:
    height, width = size
    normal = normal_features(seed, pictures, height=height, width=width)
    asked = normal_features(seed + 1, 2, height=height, width=width)
    bank, memory = bank_of(normal, grid=grid, ratio=0.5), memory_of(normal, grid=grid, ratio=0.5)
    distances, _ = search(bank, asked, count=2, radius=radius)
    expected, _ = reference.nearest_distances(
        asked.astype(np.float64), memory, count=2, radius=radius
    )
    np.testing.assert_allclose(distances, expected, rtol=1e-3)


def test_a_wider_search_never_finds_larger_distances() -> None:
    bank = bank_of(normal_features(27))
    asked = normal_features(28, pictures=2)
    found = [search(bank, asked, count=4, radius=radius)[0] for radius in (0, 1, 2)]
    rounding = 1 + 1e-5
    assert (found[1] <= found[0] * rounding).all()
    assert (found[2] <= found[1] * rounding).all()
    # A radius as wide as the grid is one memory for all patches, with the same keys.
    everywhere = bank.keys.astype(np.float64)
    vectors = asked.astype(np.float64).reshape(2, 6, -1).transpose(0, 2, 1)
    apart = np.linalg.norm(vectors[:, :, None] - everywhere, axis=-1) / bank.unit
    np.testing.assert_allclose(found[2][..., 0], apart.min(axis=-1), rtol=1e-4)


def test_each_picture_of_a_batch_is_searched_for_itself() -> None:
    bank = bank_of(normal_features(29))
    asked = normal_features(30, pictures=4)
    together, _ = search(bank, asked, count=3)
    for n in range(4):
        np.testing.assert_allclose(
            search(bank, asked[n : n + 1], count=3)[0][0], together[n], rtol=1e-5
        )


def test_features_of_another_size_are_refused() -> None:
    bank = bank_of(normal_features(31))
    with pytest.raises(ValueError, match="5 x 6 cells against a memory of 6 x 6"):
        search(bank, normal_features(31, pictures=1, height=5), count=1)


@settings(deadline=None)
@given(
    seed=SEEDS,
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40)),
    offset=st.sampled_from([0.0, 10.0, 1000.0]),
)
def test_pairwise_squared_equals_the_norm_of_differences(
    seed: int, shape: tuple[int, int, int], offset: float
) -> None:
    queries, keys, channels = shape
    rng = np.random.default_rng(seed)
    q = (offset + rng.normal(size=(queries, channels))).astype(np.float32)
    k = (offset + rng.normal(size=(keys, channels))).astype(np.float32)
    squared = pairwise_squared(torch.from_numpy(q), torch.from_numpy(k)).numpy()
    expected = ((q[:, None].astype(np.float64) - k[None]) ** 2).sum(axis=-1)
    assert (squared >= 0).all()
    # Rounding grows with the offset's own rounding in float32, not with its square.
    tolerance = 1e-5 * channels + 2e-6 * offset * np.sqrt(channels * expected.max())
    np.testing.assert_allclose(squared, expected, rtol=1e-4, atol=tolerance)


def test_patch_vectors_of_all_cells_is_the_whole_map() -> None:
    features = torch.from_numpy(normal_features(32, pictures=2))
    whole = patch_vectors(features, np.arange(36))
    assert whole.tolist() == features.permute(0, 2, 3, 1).reshape(72, 6).tolist()
