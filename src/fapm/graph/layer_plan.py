"""A plan of the cells of a layer and the keys that they meet, in NumPy alone.

:class:`fapm.graph.layer.Layer` writes :class:`LayerPlan` as nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fapm.graph.buckets import cut_buckets
from fapm.memory import geometry
from fapm.memory.bank import MemoryBank

# What one more bucket costs (a few nodes, by 5 us each), in bytes of keys read in that time.
_BUCKET_BYTES = 200_000
_MAX_BUCKETS = 8


@dataclass(frozen=True)
class LayerPlan:
    """The patches that have keys and cells to compare, by ascending number of keys.

    A patch's ``V`` rows are the cells that are compared with its keys: its own and, for
    ``radius > 0``, its neighbours'. Patches with fewer cells repeat their last one. The ``P * V``
    rows are numbered patch after patch.

    Attributes
    ----------
    cells
        int64 ``[P, V]``, the cell ``y * W + x`` of each row.
    keys
        per patch int64 ``[k]``, the rows of its keys in the bank, one after the other.
    buckets
        ``start, stop`` of each run of patches that is padded to the number of keys of its last.
    onto_finest
        int64 ``[n]``, the layer's cell that each inspected cell of the finest grid takes its
        distance from.
    found
        int64 ``[n, m]``, the rows of that cell; -1 where it is in fewer than ``m`` patches.
    fewest_keys
        that any cell meets, in all its patches together.
    """

    cells: NDArray[np.int64]
    keys: tuple[NDArray[np.int64], ...]
    buckets: tuple[tuple[int, int], ...]
    onto_finest: NDArray[np.int64]
    found: NDArray[np.int64]
    fewest_keys: int

    @classmethod
    def of(
        cls, bank: MemoryBank, onto_finest: NDArray[np.int64], *, radius: int, item_bytes: int
    ) -> LayerPlan:
        """Plan the search of a layer.

        Parameters
        ----------
        onto_finest
            as the attribute.
        radius
            patches up to this far away are searched too.
        item_bytes
            size of one number of a key. The fewer bytes, the less is gained by a bucket more.
        """
        counts = np.diff(bank.offsets)
        own = geometry.cells_by_patch(bank.height, bank.width, bank.grid, bank.inside)
        patch_grid = geometry.patch_grid(bank.height, bank.width, bank.grid)
        around = geometry.neighbour_patches(*patch_grid, radius)
        compared = [np.concatenate([own[q] for q in neighbours]) for neighbours in around]
        searched = [p for p, cells in enumerate(compared) if len(cells) and counts[p]]
        order = sorted(searched, key=lambda p: counts[p])
        compared = [compared[p] for p in order]
        width = max(map(len, compared))
        # The key itself, and its products with the patch's cells, written and read again.
        key_bytes = bank.keys.shape[1] * item_bytes + 8 * width
        return cls(
            cells=np.stack([np.pad(c, (0, width - len(c)), mode="edge") for c in compared]),
            keys=tuple(np.arange(bank.offsets[p], bank.offsets[p + 1]) for p in order),
            buckets=tuple(cut_buckets(counts[order], _BUCKET_BYTES / key_bytes, _MAX_BUCKETS)),
            onto_finest=onto_finest,
            found=_rows_of_cells(compared, bank.height * bank.width)[onto_finest],
            fewest_keys=min(len(keys) for _, keys in bank.search_sets(radius)),
        )

    @property
    def patches(self) -> int:
        """``P``, how many patches are searched."""
        return len(self.cells)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Bool ``[n, m]``, where a cell is in fewer than ``m`` patches."""
        return self.found < 0

    @property
    def spread(self) -> NDArray[np.int64]:
        """``found`` with a cell's first row in place of those it lacks."""
        return np.where(self.missing, self.found[:, :1], self.found)

    @property
    def rows(self) -> NDArray[np.int64]:
        """``found`` with row 0 in place of those that a cell lacks."""
        return np.where(self.missing, 0, self.found)

    @property
    def patch(self) -> NDArray[np.int64]:
        """Int64 ``[n, m]``, the patch of each row in ``found``; ``P`` where there is none."""
        return np.where(self.missing, self.patches, self.rows // self.cells.shape[1])

    @property
    def bucket(self) -> NDArray[np.int64]:
        """Int64 ``[n, m]``, the bucket of that patch; the number of buckets where there is none."""
        bounds = np.array([start for start, _ in self.buckets[1:]])
        bucket = np.searchsorted(bounds, self.patch, side="right")
        return np.where(self.missing, len(self.buckets), bucket)

    @property
    def widths(self) -> list[int]:
        """Per bucket, the number of keys that its patches are padded to."""
        return [len(self.keys[stop - 1]) for _, stop in self.buckets]

    def rows_within(self, number: int) -> NDArray[np.int64]:
        """``rows`` counted from the first of a bucket, int64 ``[n, m]``; 0 for other buckets'."""
        start, _ = self.buckets[number]
        return np.where(self.bucket == number, self.rows - start * self.cells.shape[1], 0)

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The columns of all buckets' products, side by side: ``K`` is the sum of their widths.

        Returns
        -------
        int64 ``[P + 1]``, added to a column of a patch it gives the row of the key in the bank; and
        bool ``[B + 1, K]``, False for a bucket's own columns. The last of each stands for no patch
        at all.
        """
        starts = np.cumsum([0, *self.widths])
        base = np.zeros(self.patches + 1, np.int64)
        elsewhere = np.ones((len(self.buckets) + 1, starts[-1]), np.bool_)
        for number, (start, stop) in enumerate(self.buckets):
            elsewhere[number, starts[number] : starts[number + 1]] = False
            base[start:stop] = [keys[0] - starts[number] for keys in self.keys[start:stop]]
        return base, elsewhere


def _rows_of_cells(compared: list[NDArray[np.int64]], cells: int) -> NDArray[np.int64]:
    """The place of each cell among the rows of patches, int64 ``[H * W, m]``; -1 for none."""
    width = max(map(len, compared))
    rows: list[list[int]] = [[] for _ in range(cells)]
    for patch, members in enumerate(compared):
        for position, cell in enumerate(members):
            rows[cell].append(patch * width + position)
    most = max(map(len, rows))
    return np.array([r + [-1] * (most - len(r)) for r in rows])
