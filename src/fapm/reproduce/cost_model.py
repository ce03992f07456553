"""Cost of a search, counted from shapes alone (paper, section 2.3, Comparison with PatchCore).

PatchCore compares ``N_t`` cells of a picture with all ``N_V`` keys, which are ``N_V N_t``
distances. With a memory for each of ``N_p`` patches they are ``N_p (N_V / N_p) (N_t / N_p)``.
Without layer-wise memory the coarse layer is upsampled to twice its height and width, so there are
four times as many cells to compare. At the same ratio four times the keys are memorised as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fapm.memory.bank import MemoryBank
from fapm.memory.coreset import MIN_KEYS
from fapm.memory.geometry import cells_by_patch
from fapm.memory.memorise import budgets

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Variant:
    """A row of Table 2, with the parts of the method that are on."""

    name: str
    what: str
    patch_wise: bool
    layer_wise: bool
    sampling: str

    def grid(self, grid: int) -> int:
        """``G`` of this variant if the whole method has ``grid``."""
        return grid if self.patch_wise else 1


VARIANTS = (
    Variant("A", "PatchCore-10 %", False, False, "none"),
    Variant("B", "patch-wise", True, False, "none"),
    Variant("C", "layer-wise", False, True, "none"),
    Variant("D", "patch- and layer-wise", True, True, "none"),
    Variant("E", "D + near-far (the paper's FAPM)", True, True, "near-far"),
    Variant("F", "D + equal-radius (ours)", True, True, "equal-radius"),
)


@dataclass(frozen=True)
class Cost:
    """Cost of searching the memory, for one picture.

    Attributes
    ----------
    keys
        number of memorised keys.
    distances
        number of pairs of a cell and a key that are compared.
    operations
        multiply-adds of those comparisons: distances times channels.
    bytes
        size of the keys as float32, which are stored, and read for every picture.
    """

    keys: int
    distances: int
    operations: int
    bytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.keys + other.keys,
            self.distances + other.distances,
            self.operations + other.operations,
            self.bytes + other.bytes,
        )


def expected_costs(
    variant: Variant,
    shapes: Sequence[tuple[int, int, int]],
    *,
    pictures: int,
    grid: int,
    ratio: float,
) -> tuple[list[Cost], list[Cost]]:
    """Least and largest cost of a variant, per memory bank, before any fit.

    Near-far sampling keeps between ``K`` and ``2 K`` keys of a patch, depending on the data. All
    others have one cost. Equal-radius sampling moves keys between patches, which costs the same if
    ``grid`` divides the map (otherwise plain shares are counted). It keeps more keys only if plain
    shares are below its minimum for each patch.

    Parameters
    ----------
    shapes
        per layer ``C, H, W`` of the encoder's feature maps.
    """
    maps = list(shapes) if variant.layer_wise else [concatenated(shapes)]
    own_grid = variant.grid(grid)
    planned = budgets([s[1:] for s in maps], pictures, grid=own_grid, ratio=ratio)
    least, most = [], []
    for (channels, height, width), budget in zip(maps, planned, strict=True):
        cells = [len(c) for c in cells_by_patch(height, width, own_grid)]
        twice = [min(2 * k, pictures * v) for k, v in zip(budget.shares, cells, strict=True)]
        shares: Sequence[int] = budget.shares
        if variant.sampling == "equal-radius":
            bound = [min(MIN_KEYS, pictures * v) for v in cells]
            shares = max(shares, bound, key=sum)
        least.append(_cost(cells, shares, channels))
        far = twice if variant.sampling == "near-far" else shares
        most.append(_cost(cells, far, channels))
    return least, most


def fitted_costs(banks: Sequence[MemoryBank], radius: int = 0) -> list[Cost]:
    """Cost of searching these memory banks, per bank."""
    costs = []
    for bank in banks:
        channels = bank.keys.shape[1]
        distances = sum(len(cells) * len(keys) for cells, keys in bank.search_sets(radius))
        costs.append(Cost(len(bank.keys), distances, distances * channels, bank.keys.size * _FLOAT))
    return costs


def total(costs: Sequence[Cost]) -> Cost:
    """Cost of all memory banks together."""
    return sum(costs, Cost(0, 0, 0, 0))


def concatenated(shapes: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """``C, H, W`` of all layers upsampled to the finest and concatenated."""
    height, width = max((shape[1:] for shape in shapes), key=math.prod)
    return sum(shape[0] for shape in shapes), height, width


def _cost(cells: Sequence[int], keys: Sequence[int], channels: int) -> Cost:
    distances = int(np.dot(cells, keys))
    return Cost(sum(keys), distances, distances * channels, sum(keys) * channels * _FLOAT)
