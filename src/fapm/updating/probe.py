"""Estimate scores of pictures from their keys alone. This module needs NumPy alone."""

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
    """Factors by which the scores of a memory's own pictures change with it, float64 ``[N]``.

    A factor is the ratio of two :func:`probe_scores` of the old keys, against the new and the old
    memory. The pictures themselves are not needed.
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

    Greedy keys are the vectors that lie far from others, so the worst cell of a picture is usually
    a key. The distance of its other cells counts as the covering radius. Only inspected cells
    count. Scored against a memory before and after a change, the same probes show the factor by
    which the scores of the pictures change.

    Parameters
    ----------
    probes
        per layer, a bank whose keys stand for their pictures ``0 .. N - 1``.
    memory
        per layer, the bank with which they are compared. Keys of the same picture are left out.
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
    """Squared distances ``[Q, k]``; the mean of the keys is subtracted from both first."""
    centre = keys.mean(axis=0)
    queries, keys = queries - centre, keys - centre
    squares = np.square(queries).sum(axis=1)[:, None] + np.square(keys).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * (queries @ keys.T), 0), np.float64)
