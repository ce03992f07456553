"""Learning on the line and the audit in plain float64 NumPy, from their definitions alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def nearest(vectors: Floats, keys: Floats) -> Floats:
    """Distance of each vector to its nearest key."""
    return np.linalg.norm(vectors[:, None] - keys[None], axis=2).min(axis=1)


def extend(
    old: Sequence[Floats], new: Sequence[Floats], held: int, budget: int, limits: Sequence[int]
) -> list[list[int]]:
    """Rows of ``[old, new]`` per patch: key by key to the patch of the largest radius.

    ``held``: with how many keys of its own each patch begins; -1 for all, and it goes greedily.
    """
    both = [np.concatenate(pair) for pair in zip(old, new, strict=True)]
    chosen = [[*range(len(keys))] if held < 0 else [0] for keys in old]
    for rows, vectors in zip(chosen, both, strict=True):
        while len(rows) < held:
            rows.append(int(nearest(vectors, vectors[rows]).argmax()))
    while sum(map(len, chosen)) < budget:
        far = [nearest(vectors, vectors[rows]) for vectors, rows in zip(both, chosen, strict=True)]
        radii = [f.max() if len(rows) < most else -1.0
                 for f, rows, most in zip(far, chosen, limits, strict=True)]  # fmt: skip
        patch = int(np.argmax(radii))
        if radii[patch] <= 0:
            break
        chosen[patch].append(int(far[patch].argmax()))
    return chosen


def nearest_pictures(
    queries: Floats, references: Floats, numbers: Sequence[int], count: int
) -> Floats:
    """Distances of each vector ``[N, V]`` to the ``count`` nearest pictures but its own."""
    result = np.full((*queries.shape[:2], count), np.inf)
    for picture, vectors in enumerate(queries):
        for cell, vector in enumerate(vectors):
            distances = sorted(
                min(float(np.linalg.norm(vector - other)) for other in others)
                for number, others in zip(numbers, references, strict=True)
                if number != picture
            )[:count]
            result[picture, cell, : len(distances)] = distances
    return result
