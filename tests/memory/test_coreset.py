"""The greedy choice and the sharing of keys, against float64 and against their own definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference
from fapm.memory import coreset
from fapm.memory.coreset import (
    MAX_SHARE,
    MIN_KEYS,
    GreedyCoreset,
    distance_score,
    key_count,
    median_radius,
    sample_equal_radius,
    sample_near_far,
)

Vectors = NDArray[np.floating]

SEEDS = st.integers(0, 2**32 - 1)


def coreset_of(vectors: Vectors, count: int = 0) -> GreedyCoreset:
    tensor = torch.from_numpy(vectors)
    chosen = GreedyCoreset(lambda: tensor)
    chosen.extend(count)
    return chosen


def sampled(patches: Sequence[Vectors], ratio: float) -> list[GreedyCoreset]:
    """What `build_bank` hands to the samplers: every patch at the plain share."""
    return [coreset_of(vectors, key_count(ratio, len(vectors))) for vectors in patches]


def spread_patches(seed: int, sizes: Sequence[int], channels: int = 8) -> list[Vectors]:
    """Patches whose spreads differ by up to a factor of ten."""
    rng = np.random.default_rng(seed)
    return [rng.normal(scale=10 ** rng.uniform(0, 1), size=(size, channels)) for size in sizes]


# The greedy order


@pytest.mark.parametrize(
    ("vectors", "channels", "count"),
    [(3344, 64, 334), (3344, 512, 50), (200, 16, 200), (50, 128, 20), (7, 1, 7), (1, 5, 1)],
)
def test_greedy_order_equals_float64_index_by_index(
    vectors: int, channels: int, count: int
) -> None:
    values = np.random.default_rng(vectors).normal(size=(vectors, channels)).astype(np.float32)
    chosen = coreset_of(values, count)
    indices, radii = reference.greedy(values.astype(np.float64), count)
    assert chosen.indices == indices
    np.testing.assert_allclose(chosen.radii, radii, rtol=1e-5)


@settings(deadline=None)
@given(seed=SEEDS, size=st.integers(1, 80), channels=st.integers(3, 30), data=st.data())
def test_greedy_order_equals_the_definition_on_any_data(
    seed: int, size: int, channels: int, data: st.DataObject
) -> None:
    # In float64, where the code's arithmetic and the reference's tell all distances apart.
    values = np.random.default_rng(seed).normal(size=(size, channels))
    count = data.draw(st.integers(1, size), label="count")
    assert coreset_of(values, count).indices == reference.greedy(values, count)[0]


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for very many vectors: a block is chosen among a few candidates."""
    monkeypatch.setattr(coreset, "PLAIN_VECTORS", 0)
    monkeypatch.setattr(coreset, "_CANDIDATES", 4)
    monkeypatch.setattr(coreset, "_BLOCK_KEYS", 5)
    monkeypatch.setattr(coreset, "_BLOCK_VECTORS", 7)


@pytest.mark.usefixtures("in_blocks")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=SEEDS, size=st.integers(1, 80), channels=st.integers(3, 30), data=st.data())
def test_block_by_block_the_order_is_the_definition(
    seed: int, size: int, channels: int, data: st.DataObject
) -> None:
    values = np.random.default_rng(seed).normal(size=(size, channels))
    count = data.draw(st.integers(1, size), label="count")
    chosen = coreset_of(values, count)
    indices, radii = reference.greedy(values, count)
    assert chosen.indices == indices
    np.testing.assert_allclose(chosen.radii, radii, rtol=1e-9)


@pytest.mark.usefixtures("in_blocks")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), size=st.integers(1, 60), channels=st.integers(1, 3))
def test_block_by_block_ties_and_copies_are_chosen_as_key_by_key(
    data: st.DataObject, size: int, channels: int
) -> None:
    # Small integers around 0: every distance is exact in float32, and many are equal.
    whole = st.lists(st.integers(-2, 2), min_size=channels, max_size=channels)
    half = np.array(data.draw(st.lists(whole, min_size=size, max_size=size)), np.float32)
    values = np.concatenate([half, -half])
    blocks = coreset_of(values, len(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "PLAIN_VECTORS", 10**6)
        plain = coreset_of(values, len(values))
    assert blocks.indices == plain.indices
    assert blocks.radii == plain.radii
    assert len(blocks.indices) == len(np.unique(values, axis=0))


def test_very_many_vectors_give_the_order_of_float64() -> None:
    size = coreset.PLAIN_VECTORS + 1000
    values = np.random.default_rng(2).normal(size=(size, 12)).astype(np.float32)
    assert coreset_of(values, 300).indices == reference.greedy(values.astype(np.float64), 300)[0]


def test_greedy_order_survives_features_far_from_the_origin() -> None:
    # Without centring, |a|^2 + |b|^2 - 2ab would have no digit left in float32.
    values = (1e4 + np.random.default_rng(0).normal(size=(300, 32))).astype(np.float32)
    indices, radii = reference.greedy(values.astype(np.float64), 60)
    chosen = coreset_of(values, 60)
    assert chosen.indices == indices
    np.testing.assert_allclose(chosen.radii, radii, rtol=1e-4)


@settings(deadline=None)
@given(seed=SEEDS, size=st.integers(1, 60), channels=st.integers(1, 20), data=st.data())
def test_extending_continues_the_order_and_never_restarts(
    seed: int, size: int, channels: int, data: st.DataObject
) -> None:
    values = np.random.default_rng(seed).normal(size=(size, channels))
    first = data.draw(st.integers(0, size), label="first")
    second = data.draw(st.integers(first, size + 5), label="second")
    stepwise, at_once = coreset_of(values, first), coreset_of(values, second)
    before = list(stepwise.indices)
    stepwise.extend(second)
    assert stepwise.indices[: len(before)] == before
    assert stepwise.indices == at_once.indices
    np.testing.assert_allclose(stepwise.radii, at_once.radii, rtol=1e-9)


@settings(deadline=None)
@given(seed=SEEDS, size=st.integers(1, 50), channels=st.integers(1, 9), data=st.data())
def test_covering_radius_is_what_brute_force_finds(
    seed: int, size: int, channels: int, data: st.DataObject
) -> None:
    values = np.random.default_rng(seed).normal(size=(size, channels))
    chosen = coreset_of(values, data.draw(st.integers(1, size), label="count"))
    radius = reference.covering_radius(values, chosen.indices)
    assert chosen.radius == pytest.approx(radius, rel=1e-9, abs=1e-7)


@settings(deadline=None)
@given(seed=SEEDS, size=st.integers(2, 60))
def test_radii_never_grow_no_key_is_chosen_twice_and_all_keys_leave_nothing_uncovered(
    seed: int, size: int
) -> None:
    chosen = coreset_of(np.random.default_rng(seed).normal(size=(size, 6)), size + 10)
    assert chosen.radii == sorted(chosen.radii, reverse=True)
    assert sorted(chosen.indices) == list(range(size))
    assert chosen.radius == 0


@settings(deadline=None)
@given(seed=SEEDS, size=st.integers(5, 40), count=st.integers(1, 4))
def test_keys_lie_at_least_a_covering_radius_apart(seed: int, size: int, count: int) -> None:
    # Gonzalez's certificate that no other choice of `count` keys halves the radius.
    values = np.random.default_rng(seed).normal(size=(size, 2))
    chosen = coreset_of(values, count + 1)
    keys = values[chosen.indices]
    apart = np.linalg.norm(keys[:, None] - keys[None], axis=2)[~np.eye(count + 1, dtype=bool)]
    assert apart.min() == pytest.approx(chosen.radii[count - 1], rel=1e-7)


@pytest.mark.parametrize("offset", [0, 10])
@pytest.mark.parametrize("channels", [1, 3, 16, 64, 512])
def test_duplicates_end_the_choice_early(channels: int, offset: float) -> None:
    rng = np.random.default_rng(channels)
    distinct = (rng.normal(size=(10, channels)) + offset).astype(np.float32)
    values = np.concatenate([distinct, distinct[rng.integers(0, 10, 190)]])
    chosen = coreset_of(values, 50)
    assert sorted(chosen.indices) == list(range(10))
    assert chosen.radius == 0


def test_equal_vectors_have_one_key() -> None:
    chosen = coreset_of(np.full((100, 64), 0.3, np.float32), 50)
    assert (chosen.indices, chosen.radii) == ([0], [0.0])


def test_of_several_equally_far_vectors_the_lowest_index_is_chosen() -> None:
    # Centred already, and small integers: every distance is exact in float32.
    values = np.array([[0, 0], [3, 0], [0, 3], [-3, 0], [0, -3]], np.float32)
    assert coreset_of(values, 5).indices == [0, 1, 2, 3, 4]


def test_the_first_key_is_vector_0_wherever_it_lies() -> None:
    values = np.random.default_rng(0).normal(size=(20, 4))
    for start in range(20):
        assert coreset_of(np.roll(values, -start, axis=0), 3).indices[0] == 0


def test_asking_for_no_more_keys_does_not_fetch_the_vectors_again() -> None:
    fetched = []

    def fetch() -> torch.Tensor:
        fetched.append(1)
        return torch.arange(10.0)[:, None]

    chosen = GreedyCoreset(fetch)
    assert math.isinf(chosen.radius)
    chosen.extend(3)
    chosen.extend(3)
    chosen.extend(2)
    assert len(fetched) == 1
    assert len(chosen.indices) == 3
    chosen.extend(4)
    assert len(fetched) == 2
    assert chosen.size == 10


# Equation (1) and its rule


@pytest.mark.parametrize("radius", [0.0, 1e-6, 0.5, math.log(3), 2.0, 20.0, 600.0])
def test_distance_score_is_equation_1(radius: float) -> None:
    assert distance_score(radius) == pytest.approx(reference.distance_score(radius), abs=1e-12)


def test_distance_score_does_not_overflow() -> None:
    assert distance_score(1e300) == 1.0


def test_distance_score_reaches_one_half_at_ln_3() -> None:
    assert distance_score(math.log(3)) == pytest.approx(0.5, abs=1e-15)


def line(radius: float, size: int = 20) -> Vectors:
    """A patch on a line whose covering radius with two keys, its ends, is exactly `radius`."""
    between = np.linspace(0.0, radius, size - 2)
    return np.concatenate([[0.0, 2 * radius], between])[:, None]


@pytest.mark.parametrize("unit", [1.0, 7.5])
def test_near_far_doubles_exactly_the_patches_beyond_ln_3_units(unit: float) -> None:
    boundary = math.log(3) * unit
    patches = [line(boundary * factor) for factor in (0.2, 0.999, 1.001, 5.0)]
    chosen = sample_near_far(sampled(patches, 0.1), unit=unit, far_threshold=0.5)
    assert [len(indices) for indices in chosen] == [2, 2, 4, 4]


@pytest.mark.parametrize("far_threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_near_far_equals_sampling_once_again_with_twice_the_keys(
    seed: int, far_threshold: float
) -> None:
    patches = spread_patches(seed, [40, 41, 60, 33, 50, 90])
    unit = median_radius(sampled(patches, 0.1))
    chosen = sample_near_far(sampled(patches, 0.1), unit=unit, far_threshold=far_threshold)
    assert chosen == reference.near_far(patches, 0.1, unit, far_threshold)


def test_near_far_with_unit_1_saturates_on_raw_features_and_doubles_every_patch() -> None:
    # Why the distance unit exists: radii of raw features are 8 to 20.
    patches = spread_patches(0, [50] * 6, channels=64)
    chosen = sample_near_far(sampled(patches, 0.1), unit=1.0, far_threshold=0.5)
    assert [len(indices) for indices in chosen] == [10] * 6


def test_a_far_patch_has_no_more_keys_than_vectors() -> None:
    patches = spread_patches(0, [10, 10])
    chosen = sample_near_far(sampled(patches, 0.9), unit=1e-3, far_threshold=0.5)
    assert [len(indices) for indices in chosen] == [10, 10]


# The share of each patch


@settings(deadline=None)
@given(percent=st.integers(1, 100), vectors=st.integers(1, 10_000_000))
@example(percent=10, vectors=30)
@example(percent=7, vectors=100)
@example(percent=29, vectors=100)
def test_key_count_is_the_ceiling_of_the_ratio_as_written(percent: int, vectors: int) -> None:
    assert key_count(percent / 100, vectors) == -(-percent * vectors // 100)


@settings(deadline=None)
@given(ratio=st.floats(0, 1, exclude_min=True), vectors=st.integers(1, 100_000))
def test_every_ratio_keeps_at_least_one_key_and_at_most_all(ratio: float, vectors: int) -> None:
    assert 1 <= key_count(ratio, vectors) <= vectors


@pytest.mark.parametrize("patches", [1, 2, 5, 6])
def test_the_unit_is_the_median_covering_radius(patches: int) -> None:
    vectors = spread_patches(3, [40] * patches)
    unit = median_radius(sampled(vectors, 0.1))
    assert unit == pytest.approx(reference.median_radius(vectors, 0.1), rel=1e-9)


def test_the_unit_of_patches_without_spread_is_1() -> None:
    assert median_radius(sampled([np.zeros((5, 2))] * 3, 0.2)) == 1.0


# Equal radius


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("sizes", [[60] * 9, [16, 100, 64, 20, 144, 36], [30], [200, 200]], ids=str)
def test_equal_radius_equals_its_definition_key_by_key(
    sizes: list[int], ratio: float, seed: int
) -> None:
    patches = spread_patches(seed, sizes)
    assert sample_equal_radius(sampled(patches, ratio)) == reference.equal_radius(patches, ratio)


@settings(deadline=None)
@given(
    seed=SEEDS,
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    ratio=st.sampled_from([0.02, 0.1, 0.25, 0.6, 1.0]),
)
def test_equal_radius_keeps_its_budget_and_bounds(
    seed: int, sizes: list[int], ratio: float
) -> None:
    patches = spread_patches(seed, sizes)
    counts = [len(chosen) for chosen in sample_equal_radius(sampled(patches, ratio))]
    shares = [key_count(ratio, size) for size in sizes]
    least = [min(MIN_KEYS, size) for size in sizes]
    most = [
        min(size, max(MIN_KEYS, key_count(MAX_SHARE, size), plain))
        for size, plain in zip(sizes, shares, strict=True)
    ]
    assert all(low <= n <= high for low, n, high in zip(least, counts, most, strict=True))
    assert sum(counts) == min(max(sum(shares), sum(least)), sum(most))


@settings(deadline=None)
@given(seed=SEEDS, sizes=st.lists(st.integers(20, 80), min_size=2, max_size=8))
def test_equal_radius_leaves_no_unbounded_patch_more_than_one_step_behind(
    seed: int, sizes: list[int]
) -> None:
    """No patch is wider than another was before it got its last key: one radius for all."""
    patches = spread_patches(seed, sizes)
    coresets = sampled(patches, 0.15)
    counts = [len(chosen) for chosen in sample_equal_radius(coresets)]
    now, before = [], []
    for vectors, chosen, count in zip(patches, coresets, counts, strict=True):
        if count < max(MIN_KEYS, key_count(MAX_SHARE, len(vectors))):
            now.append(chosen.radii[count - 1])
        if count > MIN_KEYS:
            before.append(chosen.radii[count - 2])
    if now and before:
        assert max(now) <= min(before)


def test_equal_radius_moves_keys_from_narrow_patches_to_wide_ones() -> None:
    rng = np.random.default_rng(0)
    patches = [rng.normal(scale=scale, size=(200, 4)) for scale in (1, 1, 4)]
    counts = [len(chosen) for chosen in sample_equal_radius(sampled(patches, 0.1))]
    assert sum(counts) == 60
    assert max(counts[:2]) < 20 < counts[2]


def test_equal_radius_gives_a_covered_patch_no_more_keys() -> None:
    wide = 100 * np.repeat(np.eye(6), 10, axis=0)  # six distinct vectors, far apart
    narrow = np.random.default_rng(0).normal(size=(60, 6))
    counts = [len(chosen) for chosen in sample_equal_radius(sampled([wide, narrow], 0.3))]
    assert counts == [6, 18]


def test_equal_radius_of_patches_without_any_spread_ends() -> None:
    patches = [np.ones((30, 3)), np.zeros((30, 3))]
    assert sample_equal_radius(sampled(patches, 0.1)) == [[0], [0]]


@pytest.mark.parametrize("sampler", ["none", "near-far", "equal-radius"])
def test_samplers_return_prefixes_of_the_greedy_order(sampler: str) -> None:
    patches = spread_patches(1, [50, 80, 120])
    coresets = sampled(patches, 0.1)
    chosen = {
        "none": lambda: [list(coreset.indices) for coreset in coresets],
        "near-far": lambda: sample_near_far(coresets, unit=5.0, far_threshold=0.5),
        "equal-radius": lambda: sample_equal_radius(coresets),
    }[sampler]()
    for vectors, indices in zip(patches, chosen, strict=True):
        assert indices == reference.greedy(vectors, len(indices))[0]
