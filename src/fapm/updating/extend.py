"""Learning on the line: a memory bank takes in new normal pictures, or loses one.

The paper does not have this, because it fits once. Only the keys of the old pictures are needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm.memory import coreset
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import cells_by_patch
from fapm.memory.search import pairwise_squared


def extend_bank(
    bank: MemoryBank,
    vectors: Callable[[int], Tensor],
    more: Sequence[int],
    *,
    first: int,
    sampling: str,
    replace: bool,
) -> MemoryBank:
    """Memorise new normal pictures.

    Without ``replace`` all keys stay, and the greedy choice continues among the new vectors,
    beginning with the farthest. With ``replace`` the choice is made again among keys and new
    vectors, beginning with the first key of each patch: vectors closest to another key are dropped.
    Equal-radius sampling divides the keys among the patches as at fit; with the other rules each
    patch keeps its lead. The unit stays, so that scores before and after can be compared.

    The radius of a patch becomes an upper bound: no vector, old or new, is farther from its nearest
    key. (For an old vector whose key was dropped, the bound is the old radius plus the distance
    from that key to the nearest key that stayed.)

    Patches without an inspected cell do not change.

    Parameters
    ----------
    vectors
        returns the vectors of a patch in the ``n`` new pictures, float32 ``[n * V, C]``, of its
        ``V`` inspected cells. It is not called for a patch without any.
    more
        per patch, the number of keys that it gets in addition to its own.
    first
        number of the first new picture; the others follow.
    sampling
        as in :class:`fapm.Config`.
    """
    cells = cells_by_patch(bank.height, bank.width, bank.grid, bank.inside)
    inspected = [patch for patch, own in enumerate(cells) if len(own)]

    def candidates(patch: int) -> Tensor:  # [k + n V, C]
        return torch.cat([torch.from_numpy(bank.keys[_rows(bank, patch)]), vectors(patch)])

    held = np.diff(bank.offsets)[inspected].tolist()
    coresets = [
        coreset.GreedyCoreset(partial(candidates, patch), given=0 if replace else count)
        for patch, count in zip(inspected, held, strict=True)
    ]
    wanted = [count + more[patch] for patch, count in zip(inspected, held, strict=True)]
    if sampling == "equal-radius":
        widths = [len(cells[patch]) for patch in inspected]
        indices = _share_out(coresets, held, sum(wanted), widths, first, replace)
    else:
        for chosen, count in zip(coresets, wanted, strict=True):
            chosen.extend(count)
        indices = [chosen.indices for chosen in coresets]
    orders = dict(zip(inspected, map(np.array, indices), strict=True))
    return _assembled(
        bank,
        [
            _grown(bank, patch, candidates(patch), orders[patch], own, first)
            if patch in orders
            else _unchanged(bank, patch)
            for patch, own in enumerate(cells)
        ],
    )


class _Patch(NamedTuple):
    """A patch's keys float32 ``[k, C]``, the picture and cell of each, and its radius."""

    keys: NDArray[np.float32]
    pictures: NDArray[np.int64]
    cells: NDArray[np.int64]
    radius: float


def _rows(bank: MemoryBank, patch: int) -> slice:
    """The positions in the bank of the keys of a patch."""
    return slice(int(bank.offsets[patch]), int(bank.offsets[patch + 1]))


def _unchanged(bank: MemoryBank, patch: int) -> _Patch:
    rows = _rows(bank, patch)
    return _Patch(bank.keys[rows], bank.pictures[rows], bank.cells[rows], float(bank.radii[patch]))


def _grown(
    bank: MemoryBank,
    patch: int,
    candidates: Tensor,
    chosen: NDArray[np.int64],
    cells: NDArray[np.int64],
    first: int,
) -> _Patch:
    """A patch with the ``chosen`` of its candidates as keys.

    Parameters
    ----------
    candidates
        the patch's keys, and behind them its vectors in the new pictures, float32 ``[k + n V, C]``.
    chosen
        int64, which of them.
    cells
        int64 ``[V]``, the patch's cells that are inspected.
    first
        number of the first new picture.
    """
    old = _unchanged(bank, patch)
    held, fresh = len(old.keys), np.arange(len(candidates) - len(old.keys))
    keys = candidates[torch.from_numpy(chosen)]
    return _Patch(
        keys.numpy(),
        np.concatenate([old.pictures, first + fresh // len(cells)])[chosen],
        np.concatenate([old.cells, cells[fresh % len(cells)]])[chosen],
        _bound(candidates, keys, held, old.radius),
    )


def _assembled(bank: MemoryBank, patches: Sequence[_Patch]) -> MemoryBank:
    """The bank with other keys."""
    return dataclasses.replace(
        bank,
        keys=np.concatenate([patch.keys for patch in patches]),
        offsets=np.cumsum([0, *(len(patch.keys) for patch in patches)]),
        pictures=np.concatenate([patch.pictures for patch in patches]),
        cells=np.concatenate([patch.cells for patch in patches]),
        radii=np.array([patch.radius for patch in patches], np.float32),
    )


def _share_out(
    coresets: Sequence[coreset.GreedyCoreset],
    held: Sequence[int],
    budget: int,
    widths: Sequence[int],
    first: int,
    replace: bool,
) -> list[list[int]]:
    """Equal-radius sampling of ``budget`` keys; the bounds are those of a fit on all pictures."""
    counts, limits = [], []
    least = min(coreset.MIN_KEYS, budget // len(coresets))
    for chosen, count, width in zip(coresets, held, widths, strict=True):
        chosen.extend(least if replace else count)
        counts.append(min(least if replace else count, len(chosen.indices)))
        all_vectors = first * width + chosen.size - count
        share = coreset.key_count(coreset.MAX_SHARE, all_vectors)
        limits.append(max(coreset.MIN_KEYS, count, share))
    return coreset.share_by_radius(coresets, counts, limits, budget)


def _bound(among: Tensor, keys: Tensor, old: int, radius: float) -> float:
    """Largest distance of a vector to ``keys``; the first ``old`` of the vectors had ``radius``."""
    distances = pairwise_squared(among, keys).amin(dim=1).sqrt()  # [k + n V]
    gone = radius + float(distances[:old].max())
    return max(gone, float(distances[old:].max())) if len(distances) > old else gone
