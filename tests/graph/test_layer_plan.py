"""Which cells meet which keys, against the definition: a cell meets the keys of the patches around
its own.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fapm.graph.layer_plan import LayerPlan
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import patch_grid, patch_of_cell, upsample_index

CHANNELS = 3


def made(
    seed: int, size: tuple[int, int], grid: int, radius: int, item_bytes: int, drawn: bool
) -> tuple[MemoryBank, LayerPlan]:
    """A bank with a few keys per patch, in a region or everywhere, below a map twice as fine."""
    rng = np.random.default_rng(seed)
    height, width = size
    inside = rng.random(height * width) < 0.6
    inside[rng.integers(height * width)] = True
    patch = patch_of_cell(height, width, grid).ravel()
    patches = int(patch.max()) + 1
    counts = rng.choice([1, 2, 3, 40], patches)
    if drawn:
        counts[np.bincount(patch, inside, patches) == 0] = 0
    keys = int(counts.sum())
    bank = MemoryBank(
        keys=rng.normal(size=(keys, CHANNELS)).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        pictures=np.zeros(keys, np.int64),
        cells=np.zeros(keys, np.int64),
        radii=np.ones(patches, np.float32),
        unit=1.0,
        height=height,
        width=width,
        grid=grid,
        inside=inside if drawn else None,
    )
    onto = upsample_index(size, (2 * height, 2 * width))
    if drawn:
        onto = onto[inside[onto]]
    return bank, LayerPlan.of(bank, onto, radius=radius, item_bytes=item_bytes)


def met(bank: MemoryBank, cell: int, radius: int) -> set[int]:
    """Rows of the bank that a cell is compared with, by the definition."""
    rows, columns = patch_grid(bank.height, bank.width, bank.grid)
    patch = int(patch_of_cell(bank.height, bank.width, bank.grid).ravel()[cell])
    row, column = divmod(patch, columns)
    return {
        key
        for r in range(rows)
        for c in range(columns)
        if max(abs(r - row), abs(c - column)) <= radius
        for key in range(*bank.offsets[[r * columns + c, r * columns + c + 1]])
    }


PLANS = {
    "seed": st.integers(0, 2**31),
    "size": st.tuples(st.integers(2, 7), st.integers(2, 7)),
    "grid": st.integers(1, 4),
    "radius": st.integers(0, 2),
    "item_bytes": st.sampled_from([4, 10**6]),  # one bucket, or as many as there may be
    "drawn": st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(**PLANS)
def test_a_cell_meets_the_keys_around_it(
    seed: int, size: tuple[int, int], grid: int, radius: int, item_bytes: int, drawn: bool
) -> None:
    bank, plan = made(seed, size, grid, radius, item_bytes, drawn)
    assert plan.found.shape[0] == len(plan.onto_finest)
    width, fewest = plan.cells.shape[1], len(bank.keys)
    for cell, rows in zip(plan.onto_finest, plan.found, strict=True):
        there = rows[rows >= 0]
        assert set(plan.cells.ravel()[there]) == {cell}
        found = [plan.keys[row // width] for row in there]
        together = np.concatenate(found)
        assert len(set(together)) == len(together)
        assert set(together) == met(bank, int(cell), radius)
        fewest = min(fewest, len(together))
    assert plan.fewest_keys == fewest


@settings(max_examples=60, deadline=None)
@given(**PLANS)
def test_the_nearest_of_the_spread_rows_is_the_nearest_key(
    seed: int, size: tuple[int, int], grid: int, radius: int, item_bytes: int, drawn: bool
) -> None:
    """What the nodes do with a plan, in NumPy."""
    bank, plan = made(seed, size, grid, radius, item_bytes, drawn)
    features = np.random.default_rng(seed + 1).normal(size=(bank.height * bank.width, CHANNELS))
    minima = [
        distances(features[cells], bank.keys[keys]).min(axis=1)
        for cells, keys in zip(plan.cells, plan.keys, strict=True)
    ]
    nearest = np.concatenate(minima)[plan.spread].min(axis=1)
    for cell, distance in zip(plan.onto_finest, nearest, strict=True):
        keys = bank.keys[sorted(met(bank, int(cell), radius))]
        assert distance == pytest.approx(distances(features[[cell]], keys).min())


@settings(max_examples=60, deadline=None)
@given(**PLANS)
def test_a_column_of_the_products_is_a_key_of_the_patch(
    seed: int, size: tuple[int, int], grid: int, radius: int, item_bytes: int, drawn: bool
) -> None:
    _, plan = made(seed, size, grid, radius, item_bytes, drawn)
    base, elsewhere = plan.columns()
    starts = np.cumsum([0, *plan.widths])
    assert [start for start, _ in plan.buckets] == [0, *(stop for _, stop in plan.buckets)][:-1]
    assert plan.buckets[-1][1] == plan.patches
    assert elsewhere.shape == (len(plan.buckets) + 1, starts[-1])
    assert elsewhere[-1].all()
    for number, (start, stop) in enumerate(plan.buckets):
        own = np.flatnonzero(~elsewhere[number])
        assert own.tolist() == list(range(starts[number], starts[number + 1]))
        for patch in range(start, stop):
            keys = plan.keys[patch]
            assert (base[patch] + own[: len(keys)]).tolist() == keys.tolist()
    width = plan.cells.shape[1]
    for place, row in np.ndenumerate(plan.found):
        patch, bucket = plan.patch[place], plan.bucket[place]
        if row < 0:
            assert (patch, bucket) == (plan.patches, len(plan.buckets))
            continue
        start, stop = plan.buckets[bucket]
        assert start <= patch < stop
        assert plan.rows_within(int(bucket))[place] == row - start * width


def test_a_plan_is_made_without_onnx() -> None:
    code = "import sys, fapm.graph.layer_plan; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def distances(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(one[:, None] - other, axis=2))
