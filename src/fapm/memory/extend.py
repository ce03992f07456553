"""Learning on the line: a memory bank takes in new normal pictures, or loses one.

The paper does not have this, because it fits once. Only the keys of the old pictures are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
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
    held: list[int] = np.diff(bank.offsets).tolist()
    starts: list[int] = bank.offsets[:-1].tolist()

    def candidates(patch: int) -> Tensor:  # [k + n V, C]
        old = bank.keys[starts[patch] : starts[patch] + held[patch]]
        return torch.cat([torch.from_numpy(old), vectors(patch)])

    coresets = [
        coreset.GreedyCoreset(partial(candidates, patch), given=0 if replace else held[patch])
        for patch in inspected
    ]
    if sampling == "equal-radius":
        counts = [held[patch] for patch in inspected]
        widths = [len(cells[patch]) for patch in inspected]
        budget = sum(counts) + sum(more[patch] for patch in inspected)
        indices = _share_out(coresets, counts, budget, widths, first, replace)
    else:
        for chosen, patch in zip(coresets, inspected, strict=True):
            chosen.extend(held[patch] + more[patch])
        indices = [c.indices for c in coresets]

    orders = dict(zip(inspected, map(np.array, indices), strict=True))
    keys, pictures, numbers, radii = [], [], [], []
    for patch, count in enumerate(held):
        old = slice(starts[patch], starts[patch] + count)
        if patch not in orders:
            keys.append(torch.from_numpy(bank.keys[old]))
            pictures.append(bank.pictures[old])
            numbers.append(bank.cells[old])
            radii.append(float(bank.radii[patch]))
            continue
        among, order = candidates(patch), orders[patch]
        keys.append(among[torch.from_numpy(order)])
        width, fresh = len(cells[patch]), np.arange(len(among) - count)
        pictures.append(np.concatenate([bank.pictures[old], first + fresh // width])[order])
        numbers.append(np.concatenate([bank.cells[old], cells[patch][fresh % width]])[order])
        radii.append(_bound(among, keys[-1], count, float(bank.radii[patch])))
    return MemoryBank(
        keys=torch.cat(keys).numpy(),
        offsets=np.cumsum([0, *map(len, pictures)]),
        pictures=np.concatenate(pictures),
        cells=np.concatenate(numbers),
        radii=np.array(radii, np.float32),
        unit=bank.unit,
        height=bank.height,
        width=bank.width,
        grid=bank.grid,
        inside=bank.inside,
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
