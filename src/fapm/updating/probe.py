"""What keys alone tell about the pictures they came from. NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import finest, patch_of_cell, upsample_index


def score_factors(
    old: Sequence[MemoryBank],
    new: Sequence[MemoryBank],
    pictures: int,
    *,
    radius: int,
    coarse_upsampling: str,
) -> NDArray[np.float64]:
    """By what factors the scores of a memory's own pictures move when it changes, float64 ``[N]``.

    Both are :func:`probe_scores` of the old keys. The pictures themselves are not needed.
    """
    before, after = (
        probe_scores(old, memory, pictures, radius=radius, coarse_upsampling=coarse_upsampling)
        for memory in (old, new)
    )
    return np.where(before > 0, after / np.where(before > 0, before, 1), 1.0)


def probe_scores(
    probes: Sequence[MemoryBank],
    memory: Sequence[MemoryBank],
    pictures: int,
    *,
    radius: int,
    coarse_upsampling: str,
) -> NDArray[np.float64]:
    """Leave-one-out image scores as far as keys can show them, float64 ``[N]``.

    Greedy keys are the vectors that lie far from others, so that a picture's worst cell is a key as
    a rule. Its other cells count as the covering radius away from normal. Only cells that
    are inspected count. Scored against a memory
    before and after a change, the same probes tell by what factor the pictures' scores move.

    Parameters
    ----------
    probes
        per layer, whose keys stand for their pictures ``0 .. N - 1``.
    memory
        per layer, the keys they are compared with, their own pictures' left out.
    radius, coarse_upsampling
        as in :class:`fapm.Config`.
    """
    sizes = [(bank.height, bank.width) for bank in probes]
    onto = finest(sizes)
    unified = np.zeros((pictures, onto[0] * onto[1]))
    for known, bank, size in zip(probes, memory, sizes, strict=True):
        patches = patch_of_cell(*size, known.grid).ravel()  # [H W]
        reach = known.radii[patches] / known.unit
        distances = np.tile(reach.astype(np.float64), (pictures, 1))  # [N, H W]
        for inspected, searched in bank.search_sets(radius):
            patch = patches[inspected[0]]
            rows = slice(int(known.offsets[patch]), int(known.offsets[patch + 1]))
            owners, cells = known.pictures[rows], known.cells[rows]
            squared = _squared(known.keys[rows], bank.keys[searched])
            squared[owners[:, None] == bank.pictures[searched]] = np.inf
            nearest = np.sqrt(squared.min(axis=1)) / known.unit
            there = np.isfinite(nearest)
            distances[owners[there], cells[there]] = nearest[there]
        unified += distances[:, upsample_index(size, onto, coarse_upsampling)]
    inside = probes[sizes.index(onto)].inside
    return np.asarray(unified[:, slice(None) if inside is None else inside].max(axis=1))


def _squared(queries: NDArray[np.float32], keys: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared distances ``[Q, k]``, both moved by the keys' mean first."""
    centre = keys.mean(axis=0)
    queries, keys = queries - centre, keys - centre
    squares = np.square(queries).sum(axis=1)[:, None] + np.square(keys).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * (queries @ keys.T), 0), np.float64)
