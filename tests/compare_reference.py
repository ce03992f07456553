"""SPADE, PaDiM and PatchCore in plain NumPy and float64, written from their papers.

Feature maps come in per layer as ``[N, C, H, W]``, the finest first; image scores ``[B]`` and those
of cells ``[B, H, W]`` come out. One loop per sentence, slow on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reference import average_pool, concatenate

Floats = NDArray[np.float64]
Judged = tuple[Floats, Floats]


def spade(good: Sequence[Floats], test: Sequence[Floats], neighbours: int) -> Judged:
    """arXiv 2005.02357, sections 3.2 to 3.4 with kappa = 1."""
    good_pooled, test_pooled = good[-1].mean(axis=(2, 3)), test[-1].mean(axis=(2, 3))
    good_cells, test_cells = concatenate(good), concatenate(test)
    height, width = test_cells.shape[2:]
    scores, maps = np.zeros(len(test_pooled)), np.zeros((len(test_pooled), height, width))
    for b, picture in enumerate(test_pooled):
        squared = ((good_pooled - picture) ** 2).sum(axis=1)
        nearest = np.argsort(squared, kind="stable")[:neighbours]
        scores[b] = squared[nearest].mean()
        gallery = np.concatenate([good_cells[n].reshape(len(good_cells[n]), -1).T for n in nearest])
        for y in range(height):
            for x in range(width):
                maps[b, y, x] = ((gallery - test_cells[b, :, y, x]) ** 2).sum(axis=1).min()
    return scores, maps


def padim(good: Sequence[Floats], test: Sequence[Floats], channels: NDArray[np.int64]) -> Judged:
    """arXiv 2011.08785, Equations (1) and (2), with the given channels kept."""
    good_cells, test_cells = concatenate(good)[:, channels], concatenate(test)[:, channels]
    maps = np.zeros((len(test_cells), *test_cells.shape[2:]))
    for y, x in np.ndindex(*maps.shape[1:]):
        vectors = good_cells[:, :, y, x]
        mean = vectors.mean(axis=0)
        covariance = 0.01 * np.eye(len(channels))
        for vector in vectors:
            covariance += np.outer(vector - mean, vector - mean) / (len(vectors) - 1)
        inverse = np.linalg.inv(covariance)
        for b, vector in enumerate(test_cells[:, :, y, x]):
            maps[b, y, x] = np.sqrt((vector - mean) @ inverse @ (vector - mean))
    return maps.max(axis=(1, 2)), maps


def locally_aware(layers: Sequence[Floats]) -> Floats:
    """arXiv 2106.08265, Equations (1) to (3): pooled, rescaled bilinearly, side by side."""
    pooled = [average_pool(layer) for layer in layers]
    height, width = pooled[0].shape[2:]
    return np.concatenate([_bilinear(p, height, width) for p in pooled], axis=1)


def patchcore(keys: Floats, test: Sequence[Floats], neighbours: int) -> Judged:
    """Equations (6) and (7) for keys ``[K, C]``."""
    cells = locally_aware(test)
    batch, _, height, width = cells.shape
    scores, maps = np.zeros(batch), np.zeros((batch, height, width))
    for b in range(batch):
        worst, from_key = None, None
        for y in range(height):
            for x in range(width):
                distances = np.linalg.norm(keys - cells[b, :, y, x], axis=1)
                maps[b, y, x] = distances.min()
                if worst is None or maps[b, y, x] > scores[b]:
                    worst, from_key = cells[b, :, y, x], keys[distances.argmin()]
                    scores[b] = maps[b, y, x]
        around = keys[np.argsort(np.linalg.norm(keys - from_key, axis=1))[:neighbours]]
        weights = np.exp(np.linalg.norm(around - worst, axis=1))
        scores[b] *= 1 - np.exp(np.linalg.norm(worst - from_key)) / weights.sum()
    return scores, maps


def _bilinear(maps: Floats, height: int, width: int) -> Floats:
    """Pixel centres on pixel centres, edges repeated beyond the outermost."""

    def axis(cells: int, count: int) -> Floats:
        matrix = np.zeros((count, cells))
        for i in range(count):
            at = min(max((i + 0.5) * cells / count - 0.5, 0), cells - 1)
            low = int(at)
            matrix[i, low] += 1 - (at - low)
            matrix[i, min(low + 1, cells - 1)] += at - low
        return matrix

    rows, columns = axis(maps.shape[2], height), axis(maps.shape[3], width)
    return rows @ maps @ columns.T
