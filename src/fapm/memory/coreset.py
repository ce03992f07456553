"""Patch-wise adaptive coreset sampling (paper, section 2.2, Equation 1)."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Equal-radius sampling extends a patch by this many keys at a time: enough that fetching its
# vectors costs little, few enough that little is chosen in vain.
_CHUNK = 32

# A squared distance of fewer than this many roundings of the largest squared norm is none: the
# vectors are equal.
ROUNDINGS = 8

# Bounds of equal-radius sampling: every patch keeps at least this many keys ...
MIN_KEYS = 4
# ... and at most this share of its vectors.
MAX_SHARE = 0.4


class GreedyCoreset:
    """Greedy k-center choice among the vectors of one patch (minimax facility location).

    The first key is vector 0; each further key is the vector farthest from all keys so far (the
    lowest index where several are equally far). The order is a prefix order: :meth:`extend`
    continues it and never restarts. It ends early when every vector has a key at distance 0.

    Parameters
    ----------
    vectors
        returns the patch's vectors, float ``[M, C]``. It is called by every :meth:`extend` and the
        result dropped after, so that of all patches' vectors only one patch's are held twice.

    Attributes
    ----------
    indices
        ``list[int]``, the chosen vectors in order.
    radii
        ``list[float]``, covering radius after each choice, in the vectors' own units.
    """

    def __init__(self, vectors: Callable[[], Tensor]) -> None:
        self._vectors = vectors
        self._nearest = torch.empty(0)  # [M] squared distance to the nearest key, once extended
        self.indices: list[int] = []
        self.radii: list[float] = []

    @property
    def size(self) -> int:
        """``M``, the number of vectors to choose among; 0 before the first :meth:`extend`."""
        return len(self._nearest)

    @property
    def radius(self) -> float:
        """Covering radius of the keys so far; infinite before the first."""
        return self.radii[-1] if self.radii else math.inf

    def extend(self, count: int) -> None:
        """Choose keys until there are ``count``, or until every vector is a key's equal."""
        if count <= len(self.indices) or self.radius == 0:
            return
        vectors = self._vectors()  # [M, C]
        # Distances do not change when all vectors move together; centred vectors have smaller
        # norms, so that |a|^2 + |b|^2 - 2ab loses fewer digits.
        vectors = vectors - vectors.mean(dim=0)
        squares = vectors.square().sum(dim=1)  # [M]
        noise = ROUNDINGS * torch.finfo(squares.dtype).eps * float(squares.max())
        if not self.indices:
            self._nearest = torch.full_like(squares, math.inf)
        following = int(self._nearest.argmax()) if self.indices else 0
        while len(self.indices) < min(count, len(vectors)) and self.radius > 0:
            distances = torch.mv(vectors, vectors[following])  # [M]
            distances = torch.add(squares, distances, alpha=-2).add_(squares[following])
            torch.minimum(self._nearest, distances, out=self._nearest)
            self._nearest[following] = 0  # exact where rounding left a residue
            self.indices.append(following)
            farthest, index = self._nearest.max(dim=0)
            self.radii.append(math.sqrt(float(farthest)) if float(farthest) > noise else 0.0)
            following = int(index)


def distance_score(radius: float) -> float:
    """Spread of a patch in ``0 .. 1`` from its covering radius (paper, Equation 1).

    ``1 - 2 / (1 + exp(r))``, written as ``tanh(r / 2)``, which is the same and cannot overflow.
    """
    return math.tanh(radius / 2)


def key_count(ratio: float, vectors: int) -> int:
    """``ceil(ratio * vectors)``, safe against the ratio's binary rounding (0.1 * 30 is not 3)."""
    return max(1, math.ceil(ratio * vectors - 1e-9))


def median_radius(coresets: Sequence[GreedyCoreset]) -> float:
    """Distance unit of a layer: the median covering radius over its patches, 1 if that is 0."""
    radius = statistics.median(coreset.radius for coreset in coresets)
    return radius if radius > 0 else 1.0


def sample_near_far(
    coresets: Sequence[GreedyCoreset], *, unit: float, far_threshold: float
) -> list[list[int]]:
    """The paper's adaptive sampling: patches of large spread continue to ``2K`` keys.

    A patch is far where :func:`distance_score` of its covering radius, in ``unit``, is above
    ``far_threshold`` (the paper's ``D_th``).

    Returns
    -------
    per patch the chosen vectors, in order.
    """
    for coreset in coresets:
        if distance_score(coreset.radius / unit) > far_threshold:
            coreset.extend(2 * len(coreset.indices))
    return [list(coreset.indices) for coreset in coresets]


def sample_equal_radius(coresets: Sequence[GreedyCoreset]) -> list[list[int]]:
    """Share the keys of plain sampling so that all patches get one covering radius.

    The budget is what the coresets hold when they come in. Key by key it goes to the patch whose
    radius is the largest, so that narrow patches give up keys to wide ones. Every patch keeps at
    least :data:`MIN_KEYS` and at most :data:`MAX_SHARE` of its vectors, or its plain share where
    that is more.

    Returns
    -------
    per patch the chosen vectors: a prefix of its greedy order.
    """
    budget = sum(len(coreset.indices) for coreset in coresets)
    counts, limits = [], []
    for coreset in coresets:
        limits.append(max(MIN_KEYS, key_count(MAX_SHARE, coreset.size), len(coreset.indices)))
        coreset.extend(MIN_KEYS)
        counts.append(min(MIN_KEYS, len(coreset.indices)))

    widest = [
        (-coreset.radii[k - 1], p)
        for p, (coreset, k) in enumerate(zip(coresets, counts, strict=True))
    ]
    heapq.heapify(widest)
    for _ in range(budget - sum(counts)):
        while widest:
            radius, p = heapq.heappop(widest)
            if counts[p] < limits[p] and radius < 0:
                break
        else:
            break  # every patch is full or covered
        counts[p] += 1
        coreset = coresets[p]
        if counts[p] > len(coreset.indices):
            coreset.extend(min(counts[p] + _CHUNK, limits[p]))
        heapq.heappush(widest, (-coreset.radii[counts[p] - 1], p))
    return [coreset.indices[:count] for coreset, count in zip(coresets, counts, strict=True)]
