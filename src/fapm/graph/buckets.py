"""Patches of unlike numbers of keys, cut into a few blocks of equal ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def padded(rows: Sequence[NDArray[Any]], value: float) -> NDArray[Any]:
    """Arrays ``[n, ...]`` stacked to ``[len(rows), max n, ...]``."""
    longest = max(map(len, rows))
    block = np.full((len(rows), longest, *rows[0].shape[1:]), value, np.float64)
    for i, row in enumerate(rows):
        block[i, : len(row)] = row
    return block


def cut_buckets(counts: NDArray[np.int64], bucket_cost: float, most: int) -> list[tuple[int, int]]:
    """Cut ascending ``counts`` into runs, each padded to its last, at the least cost.

    Parameters
    ----------
    counts
        int ``[P]``, ascending.
    bucket_cost
        what one more bucket costs, in keys.
    most
        buckets at most.

    Returns
    -------
    ``start, stop`` of each run.
    """
    total = len(counts)
    best = counts * np.arange(1, total + 1.0)  # the first j + 1 counts in one bucket
    cuts = [np.zeros(total, np.int64)]
    costs = [best[-1] + bucket_cost]
    for used in range(2, min(most, total) + 1):
        now, cut = best.copy(), np.zeros(total, np.int64)
        for j in range(1, total):
            split = best[:j] + counts[j] * (j - np.arange(j))
            at = int(split.argmin())
            if split[at] < now[j]:
                now[j], cut[j] = split[at], at + 1
        best = now
        cuts.append(cut)
        costs.append(best[-1] + used * bucket_cost)
    level, stop, runs = int(np.argmin(costs)), total, []
    while stop > 0:
        start = int(cuts[level][stop - 1])
        runs.append((start, stop))
        stop, level = start, level - 1
    return runs[::-1]
