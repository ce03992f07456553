"""The memory bank of one layer: keys by patch (paper, sections 2.1 and 2.2).

Like :mod:`fapm.memory.geometry`, this module needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fapm.memory.geometry import Grid, cells_by_patch, neighbour_patches, patch_grid


@dataclass(frozen=True)
class MemoryBank:
    """Keys of one layer, patch after patch.

    Attributes
    ----------
    keys
        float32 ``[K, C]``, all patches' keys one after the other.
    offsets
        int64 ``[P + 1]``; patch ``p`` owns ``keys[offsets[p] : offsets[p + 1]]``.
    pictures
        int64 ``[K]``, the training picture that each key came from.
    cells
        int64 ``[K]``, the cell of that picture, ``y * W + x``.
    radii
        float32 ``[P]``, covering radius of each patch, raw (not in ``unit``).
    unit
        distance unit of the layer: its distances are divided by it.
    height, width
        cells of the layer's feature map.
    grid
        ``G``: patches along an edge, or rows and columns of them.
    inside
        bool ``[H * W]``, the cells that are inspected; None means all. A patch without such a cell
        has no keys, unless the bank was memorised for more cells.
    """

    keys: NDArray[np.float32]
    offsets: NDArray[np.int64]
    pictures: NDArray[np.int64]
    cells: NDArray[np.int64]
    radii: NDArray[np.float32]
    unit: float
    height: int
    width: int
    grid: Grid
    inside: NDArray[np.bool_] | None = None

    @property
    def inspected(self) -> int:
        """Number of cells that are inspected."""
        return self.height * self.width if self.inside is None else int(self.inside.sum())

    def search_sets(self, radius: int = 0) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Per patch, its cells int64 ``[V]`` and the keys int64 ``[k]`` they are compared with.

        The cells are those that are inspected. A patch without any is left out.
        """
        rows, columns = patch_grid(self.height, self.width, self.grid)
        cells = cells_by_patch(self.height, self.width, self.grid, self.inside)
        for p, neighbours in enumerate(neighbour_patches(rows, columns, radius)):
            searched = [np.arange(self.offsets[q], self.offsets[q + 1]) for q in neighbours]
            if len(cells[p]):
                yield cells[p], np.concatenate(searched)
