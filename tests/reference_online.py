"""Learning on the line and the audit in plain float64 NumPy, from their definitions alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import reference

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


def unlike_others(
    layers: Sequence[Floats],
    inside: Sequence[NDArray[np.bool_]],
    grid: int,
    radius: int,
    outlying: Sequence[int],
) -> Floats:
    """How unlike the others pictures are, ``[N, H, W]`` on the finest map; 0 where not inspected.

    Per cell the mean distance to the two nearest pictures that are not ``outlying``, of the six
    nearest, in units of the layer's median; the layers' sum.

    ``layers``: ``[N, C, H, W]`` each; ``inside``: which of their cells are inspected ``[H, W]``.
    """
    height, width = max((f.shape[2:] for f in layers), key=lambda size: size[0] * size[1])
    total = np.zeros((len(layers[0]), height, width))
    for features, seen in zip(layers, inside, strict=True):
        numbers = reference.patch_numbers(*features.shape[2:], grid)
        columns = min(grid, features.shape[3])
        means = np.zeros((len(features), *features.shape[2:]))
        for n, y, x in np.ndindex(means.shape):
            if not seen[y, x]:
                continue
            patch = divmod(int(numbers[y, x]), columns)
            near = [
                (i, j)
                for i, j in np.argwhere(seen)
                if max(abs(np.subtract(divmod(int(numbers[i, j]), columns), patch))) <= radius
            ]
            others = sorted(
                (min(np.linalg.norm(features[n, :, y, x] - f[:, i, j]) for i, j in near), number)
                for number, f in enumerate(features)
                if number != n
            )[:6]
            known = [distance for distance, number in others if number not in outlying][:2]
            known += [others[-1][0]] * (2 - len(known))
            means[n, y, x] = np.mean(known)
        counted = np.sort(means[:, seen].ravel())
        means /= counted[(len(counted) - 1) // 2]
        total += reference.nearest_upsampling(means, height, width)
    shown = max(inside, key=np.size)
    return total * shown
