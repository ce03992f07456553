"""SPADE, PaDiM and PatchCore equal their papers in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

import compare_reference as reference
from fapm.compare import on_encoder as method
from fapm.compare.padim import Padim
from fapm.compare.patchcore import PatchCore, project
from fapm.compare.spade import Spade
from fapm.errors import ConfigError
from reference import concatenate, greedy

GOOD, TEST = 9, 3
# Sizes that divide, and sizes that do not.
GRIDS = [((8, 8), (4, 4)), ((7, 5), (4, 3))]

Layers = list[Tensor]


def features(count: int, grid: tuple[tuple[int, int], ...], seed: int) -> Layers:
    """Two layers float32 ``[N, C, H, W]``: one part under noise, far from the origin."""
    part, noise = np.random.default_rng(0), np.random.default_rng(seed)
    layers = []
    for channels, size in zip((6, 10), grid, strict=True):
        common = part.normal(50, 3, (1, channels, *size))
        drift = noise.normal(0, 1, (count, channels, 1, 1))
        layers.append(common + drift + noise.normal(0, 1, (count, channels, *size)))
    return [torch.from_numpy(layer).float() for layer in layers]


def doubles(layers: Layers) -> list[reference.Floats]:
    return [layer.double().numpy() for layer in layers]


def fitted(judge: method.FeatureMethod, layers: Layers) -> method.FeatureMethod:
    """In batches of 4, 4 and 1."""
    parts = [list(batch) for batch in zip(*(layer.split(4) for layer in layers), strict=True)]
    judge.fit(iter(parts), len(layers[0]))
    return judge


def assert_equal(got: tuple[Tensor, Tensor], expected: reference.Judged) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.numpy() == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("neighbours", [1, 4, 50])
def test_spade_equals_its_paper(grid: tuple[tuple[int, int], ...], neighbours: int) -> None:
    good, test = features(GOOD, grid, 1), features(TEST, grid, 2)
    got = fitted(Spade(neighbours), good).score(test)
    assert_equal(got, reference.spade(doubles(good), doubles(test), neighbours))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("channels", [5, 100])
def test_padim_equals_its_paper(grid: tuple[tuple[int, int], ...], channels: int) -> None:
    good, test = features(GOOD, grid, 1), features(TEST, grid, 2)
    judge = Padim(channels, seed=3)
    got = fitted(judge, good).score(test)
    kept = np.sort(np.random.default_rng(3).permutation(16)[:channels])
    assert_equal(got, reference.padim(doubles(good), doubles(test), kept))
    assert len(kept) == min(channels, 16)


def test_padim_takes_other_channels_with_another_seed() -> None:
    good, test = features(GOOD, GRIDS[0], 1), features(TEST, GRIDS[0], 2)
    one, same, other = (
        fitted(Padim(5, seed=seed), good).score(test)[0].tolist() for seed in (0, 0, 1)
    )
    assert one == same != other


def test_padim_of_one_picture_is_the_plain_distance() -> None:
    good, test = features(1, GRIDS[0], 1), features(TEST, GRIDS[0], 2)
    scores, _ = fitted(Padim(16), good).score(test)
    apart = concatenate(doubles(test)) - concatenate(doubles(good))
    expected = np.linalg.norm(apart, axis=1).max(axis=(1, 2)) / 0.1
    assert scores.numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("neighbours", [1, 9])
def test_patchcore_equals_its_paper(grid: tuple[tuple[int, int], ...], neighbours: int) -> None:
    good, test = features(GOOD, grid, 1), features(TEST, grid, 2)
    got = fitted(PatchCore(0.2, neighbours=neighbours), good).score(test)
    vectors = np.moveaxis(reference.locally_aware(doubles(good)), 1, -1).reshape(-1, 16)
    chosen, _ = greedy(vectors, -(-len(vectors) // 5))
    assert_equal(got, reference.patchcore(vectors[chosen], doubles(test), neighbours))
    assert (got[0] > 0).all() == (neighbours > 1)  # one neighbour has all the weight


def test_a_projection_keeps_distances_about() -> None:
    vectors = torch.randn(40, 600, generator=torch.Generator().manual_seed(1))
    projected = project(vectors, 128, seed=0)
    assert projected.shape == (40, 128)
    stretch = torch.pdist(projected) / torch.pdist(vectors)
    assert 0.6 < float(stretch.min()) < float(stretch.mean()) < float(stretch.max()) < 1.4
    assert float(stretch.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(project(vectors, 600, seed=0), vectors)


def test_patchcore_chooses_on_the_projection() -> None:
    good = features(GOOD, GRIDS[0], 1)
    judge = PatchCore(0.2, dimensions=4, seed=5)
    fitted(judge, good)
    vectors = np.moveaxis(reference.locally_aware(doubles(good)), 1, -1).reshape(-1, 16)
    projected = project(torch.from_numpy(vectors).float(), 4, seed=5).double().numpy()
    chosen, _ = greedy(projected, -(-len(vectors) // 5))
    expected = vectors[chosen] - vectors[chosen].mean(axis=0)
    assert judge.state()[0].numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("build", [Spade, Padim, PatchCore])
def test_too_many_features_are_refused_before_they_are_held(
    build: type[method.FeatureMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = itertools.count()

    def endless() -> method.Iterator[Layers]:
        for number in taken:
            yield features(4, GRIDS[0], number)

    monkeypatch.setattr(method, "MOST_BYTES", 10_000)
    with pytest.raises(ConfigError, match=r"features of 1,000 pictures take .* smaller --resize"):
        build().fit(endless(), 1000)
    assert next(taken) == 1


def test_the_covariances_of_many_positions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    good = features(1, GRIDS[0], 0)
    monkeypatch.setattr(method, "MOST_BYTES", 10_000)
    with pytest.raises(ConfigError, match="covariances of 64 positions"):
        fitted(Padim(), good)
