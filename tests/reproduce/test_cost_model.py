"""The cost model against plain counting, pair by pair."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import stripes
from conftest import Command, Refusal
from fapm import Config, Detector
from fapm.memory.bank import MemoryBank
from fapm.reproduce.cost_model import VARIANTS, Variant, expected_costs, fitted_costs, total
from fapm.reproduce.table2 import variant_config
from reference import patch_numbers, share

SHAPES = [(40, 12, 12), (112, 6, 6)]


def counted(variant: Variant, pictures: int, grid: int, ratio: float, times: int = 1) -> list[int]:
    """Keys, distances, multiply-adds and bytes: one step for each cell of each patch."""
    maps = SHAPES if variant.layer_wise else [(152, 12, 12)]
    keys = distances = operations = size = 0
    for channels, height, width in maps:
        numbers = patch_numbers(height, width, grid if variant.patch_wise else 1)
        patches = range(numbers.max() + 1)
        plain = sum(share(ratio, pictures * int((numbers == p).sum())) for p in patches)
        at_least_four = variant.name == "F" and plain < 4 * len(patches)
        for patch in patches:
            cells = int((numbers == patch).sum())
            own = min(times * share(ratio, pictures * cells), pictures * cells)
            if at_least_four:
                own = 4
            keys += own
            size += own * channels * 4
            for _ in range(cells):
                for _ in range(own):
                    distances += 1
                    operations += channels
    return [keys, distances, operations, size]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
@pytest.mark.parametrize(("pictures", "grid", "ratio"), [(10, 3, 0.1), (7, 5, 0.1), (9, 6, 0.7)])
def test_shapes_alone_give_what_counting_gives(
    variant: Variant, pictures: int, grid: int, ratio: float
) -> None:
    least, most = expected_costs(variant, SHAPES, pictures=pictures, grid=grid, ratio=ratio)
    for costs, times in ((least, 1), (most, 2 if variant.sampling == "near-far" else 1)):
        cost = total(costs)
        assert [cost.keys, cost.distances, cost.operations, cost.bytes] == counted(
            variant, pictures, grid, ratio, times
        )


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_a_fitted_memory_costs_what_was_expected(variant: Variant) -> None:
    config = variant_config(variant, Config.create(resize=64, grid=2))
    fitted = Detector(config).fit(stripes.good_pictures()).fitted_
    least, most = expected_costs(
        variant, fitted.encoder.shapes, pictures=stripes.COUNT, grid=2, ratio=0.1
    )
    costs = fitted_costs(fitted.banks)
    assert len(costs) == len(least)
    for cost, low, high in zip(costs, least, most, strict=True):
        for name in ("keys", "distances", "operations", "bytes"):
            assert getattr(low, name) <= getattr(cost, name) <= getattr(high, name)


def test_wider_searches_cost_more() -> None:
    bank = MemoryBank(
        keys=np.zeros((10, 5), np.float32),
        offsets=np.array([0, 1, 3, 6, 10]),
        pictures=np.zeros(10, np.int64),
        cells=np.zeros(10, np.int64),
        radii=np.ones(4, np.float32),
        unit=1.0,
        height=4,
        width=4,
        grid=2,
    )
    (own,), (wide,) = fitted_costs([bank]), fitted_costs([bank], radius=1)
    assert (own.keys, own.distances, own.operations, own.bytes) == (10, 40, 200, 200)
    assert (wide.keys, wide.distances) == (10, 160)


def test_the_papers_two_sentences(run: Command) -> None:
    finished = run("reproduce", "cost", "--pictures", "100", "--json", "-")
    assert (finished.code, finished.err) == (0, "")
    figures = json.loads(finished.out)
    assert figures["shapes"] == [[512, 28, 28], [1024, 14, 14]]
    rows = {row["variant"]: row for row in figures["rows"]}
    n_v, n_t, n_p = 7840, 784, 49
    assert (rows["A"]["keys"], rows["A"]["distances"]) == (n_v, n_v * n_t)
    assert rows["B"]["distances"] == n_p * (n_v // n_p) * (n_t // n_p)
    # Upsampled, the coarse layer's channels cost four times the queries and four times the keys.
    fine, coarse = rows["C"]["layers"]
    assert fine["operations"] + 16 * coarse["operations"] == rows["A"]["operations"]
    assert rows["A"]["less_than_a"] == 1
    assert math.isclose(rows["D"]["less_than_a"], rows["A"]["operations"] / rows["D"]["operations"])
    text = run("reproduce", "cost", "--pictures", "100").out
    assert "N_V x N_t = 7,840 x 784 = 6,146,560 pairs" in text
    assert "together 16 times" in text


def test_what_cannot_be_counted_is_refused(refusal: Refusal) -> None:
    assert refusal("reproduce", "cost", "--pictures", "0") == "pictures: 0 is not at least 1"
    assert "nonsense" in refusal("reproduce", "cost", "--encoder", "nonsense")
