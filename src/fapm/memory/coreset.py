"""Patch-wise adaptive coreset sampling (paper, section 2.2, Equation 1)."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

# Equal-radius sampling extends a patch by this many keys at a time: so many that fetching its
# vectors costs little, and so few that hardly any key is chosen in vain.
_CHUNK = 32

# If there are more vectors than this, keys are chosen among the farthest vectors, block by block,
# which is three to nine times as fast. Otherwise they are chosen key by key, so that usual fits do
# not depend on the rounding of a matrix product.
PLAIN_VECTORS = 16_384
# The farthest 1 / 32 of the vectors are a block's candidates ...
_CANDIDATES = 32
# ... a block has at most _BLOCK_KEYS keys, and is compared with _BLOCK_VECTORS vectors at a time,
# so that the distances between them (4 MB) stay in the cache.
_BLOCK_KEYS = 256
_BLOCK_VECTORS = 4096

# Two vectors are equal if their squared distance is less than this many roundings of the largest
# squared norm.
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
        returns the patch's vectors, float ``[M, C]``. Every :meth:`extend` calls it and drops the
        result afterwards, so that the vectors of only one patch are held twice.
    given
        number of the first vectors that are keys already: the choice begins behind them.

    Attributes
    ----------
    indices
        ``list[int]``, the chosen vectors in order.
    radii
        ``list[float]``, covering radius after each choice, in the vectors' own units.
    """

    def __init__(self, vectors: Callable[[], Tensor], given: int = 0) -> None:
        self._vectors = vectors
        self._given = given
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
        """Choose keys until there are ``count``, or until every vector equals a key."""
        if count <= len(self.indices) or self.radius == 0:
            return
        # Held to the end, so that objects that outlive this call are not placed in its memory.
        given = self._vectors()  # [M, C]
        # Distances do not change when all vectors move together; centred vectors have smaller
        # norms, so that |a|^2 + |b|^2 - 2ab loses fewer digits.
        vectors = given - given.mean(dim=0)
        squares = vectors.square().sum(dim=1)  # [M]
        noise = ROUNDINGS * torch.finfo(squares.dtype).eps * float(squares.max())
        if not self.indices:
            self._nearest = torch.full_like(squares, math.inf)
            if self._given:
                self._take_given(vectors, squares, noise)
        while len(self.indices) < min(count, len(vectors)) and self.radius > 0:
            most = min(count, len(vectors)) - len(self.indices)
            if len(vectors) <= PLAIN_VECTORS:
                chosen, farthest = _choose(vectors, squares, self._nearest, most, noise)
            elif not self.indices:  # no vector is farther than another yet
                chosen, farthest = _choose(vectors, squares, self._nearest, 1, noise)
            else:
                chosen, farthest = _choose_block(vectors, squares, self._nearest, most, noise)
            self.indices += chosen
            self.radii += [math.sqrt(f) if f > noise else 0.0 for f in farthest]

    def _take_given(self, vectors: Tensor, squares: Tensor, noise: float) -> None:
        """Take the given keys at once; the radius after the last one stands for all of them."""
        _compare(vectors, squares, self._nearest, torch.arange(self._given))
        farthest = float(self._nearest.max())
        self.indices = list(range(self._given))
        self.radii = [math.sqrt(farthest) if farthest > noise else 0.0] * self._given


def _choose(
    vectors: Tensor, squares: Tensor, nearest: Tensor, most: int, floor: float
) -> tuple[list[int], list[float]]:
    """Choose the farthest vector ``most`` times, or until all lie within ``floor``.

    Parameters
    ----------
    vectors, squares
        float ``[M, C]`` and their squared norms ``[M]``.
    nearest
        ``[M]`` squared distances to the nearest key, brought up to date in place.

    Returns
    -------
    the chosen vectors, and the largest of ``nearest`` after each.
    """
    chosen: list[int] = []
    farthest: list[float] = []
    following = int(nearest.argmax())
    while not chosen or (len(chosen) < most and farthest[-1] > floor):
        distances = torch.mv(vectors, vectors[following])  # [M]
        distances = torch.add(squares, distances, alpha=-2).add_(squares[following])
        torch.minimum(nearest, distances, out=nearest)
        nearest[following] = 0  # exact where rounding left a residue
        chosen.append(following)
        value, index = nearest.max(dim=0)
        farthest.append(float(value))
        following = int(index)
    return chosen, farthest


def _choose_block(
    vectors: Tensor, squares: Tensor, nearest: Tensor, most: int, floor: float
) -> tuple[list[int], list[float]]:
    """Do as :func:`_choose`, but use one pass over all vectors for many keys.

    Distances to the nearest key only ever shrink. The candidates are the farthest vectors at the
    start. As long as one of them is as far as all other vectors were at the start, the farthest
    candidate is the farthest of all vectors. When that ends, all vectors are compared with the
    block of new keys at once, as a matrix product. It usually ends before ``most`` keys are chosen
    and above ``floor``.
    """
    level = nearest.topk(max(1, len(nearest) // _CANDIDATES), sorted=False).values.min()
    candidates = torch.nonzero(nearest >= level).flatten()  # [c], ascending, all ties among them
    within = math.nextafter(float(level), -math.inf)  # as far as `level` is far enough
    places, farthest = _choose(
        vectors[candidates],
        squares[candidates],
        nearest[candidates],
        min(most, _BLOCK_KEYS),
        max(floor, within),
    )
    chosen = candidates[places]  # [k]
    _compare(vectors, squares, nearest, chosen)
    farthest[-1] = float(nearest.max())
    return chosen.tolist(), farthest


def _compare(vectors: Tensor, squares: Tensor, nearest: Tensor, chosen: Tensor) -> None:
    """Bring ``nearest`` up to date with new keys, int64 ``[k]``, in one pass over all vectors."""
    keys, key_squares = vectors[chosen], squares[chosen]
    for start in range(0, len(vectors), _BLOCK_VECTORS):
        part = slice(start, start + _BLOCK_VECTORS)
        distances = torch.addmm(key_squares, vectors[part], keys.T, alpha=-2).amin(dim=1)  # [part]
        torch.minimum(nearest[part], distances.add_(squares[part]), out=nearest[part])
    nearest[chosen] = 0


def distance_score(radius: float) -> float:
    """Spread of a patch in ``0 .. 1`` from its covering radius (paper, Equation 1).

    The equation is ``1 - 2 / (1 + exp(r))``. It is written as ``tanh(r / 2)``, which is equal and
    cannot overflow.
    """
    return math.tanh(radius / 2)


def key_count(ratio: float, vectors: int) -> int:
    """``ceil(ratio * vectors)``, safe against the ratio's binary rounding (0.1 * 30 is not 3)."""
    return max(1, math.ceil(ratio * vectors - 1e-9))


def share_out(total: int, weights: Sequence[int], least: Sequence[int]) -> list[int]:
    """Split ``total`` in proportion to ``weights``, with at least ``least`` for each.

    The parts add up to ``total``. Each weight must be at least its ``least``, and ``total`` at
    least the sum of ``least``. A ``total`` that covers all weights then gives each at least
    its weight.
    """
    beyond = [weight - low for weight, low in zip(weights, least, strict=True)]
    if sum(beyond) == 0:
        beyond = [1] * len(beyond)
    spare = total - sum(least)
    # Rounded sums, and the differences between them: every part is off by less than one.
    ends = [spare * end // sum(beyond) for end in accumulate(beyond, initial=0)]
    return [low + end - start for low, (start, end) in zip(least, pairwise(ends), strict=True)]


def median_radius(coresets: Sequence[GreedyCoreset]) -> float:
    """Distance unit of a layer: the median covering radius over its patches, 1 if that is 0."""
    radius = statistics.median(coreset.radius for coreset in coresets)
    return radius if radius > 0 else 1.0


def sample_near_far(
    coresets: Sequence[GreedyCoreset],
    *,
    unit: float,
    far_threshold: float,
    most: int | None = None,
) -> list[list[int]]:
    """The paper's adaptive sampling: patches of large spread continue to ``2K`` keys.

    A patch is far if :func:`distance_score` of its covering radius, in ``unit``, is above
    ``far_threshold`` (the paper's ``D_th``). If that gives more than ``most`` keys, every patch
    gives up the same share of its keys.

    Returns
    -------
    per patch the chosen vectors, in order.
    """
    for coreset in coresets:
        if distance_score(coreset.radius / unit) > far_threshold:
            coreset.extend(2 * len(coreset.indices))
    counts = [len(coreset.indices) for coreset in coresets]
    if most is not None and sum(counts) > most:
        counts = share_out(most, counts, [1] * len(counts))
    return [coreset.indices[:count] for coreset, count in zip(coresets, counts, strict=True)]


def sample_equal_radius(
    coresets: Sequence[GreedyCoreset], *, most: int | None = None
) -> list[list[int]]:
    """Divide the keys of plain sampling so that all patches get one covering radius.

    The budget is the number of keys that ``coresets`` hold at the call. Each key goes to the patch
    whose radius is the largest, so that narrow patches give up keys to wide ones. Every patch keeps
    at least :data:`MIN_KEYS` keys. It gets at most the share :data:`MAX_SHARE` of its vectors, or
    its keys of plain sampling if these are more. A small ``most`` may leave a patch with fewer keys
    than :data:`MIN_KEYS`.

    Returns
    -------
    per patch the chosen vectors: a prefix of its greedy order.
    """
    budget = sum(len(coreset.indices) for coreset in coresets)
    least = MIN_KEYS if most is None else min(MIN_KEYS, most // len(coresets))
    limits = []
    for coreset in coresets:
        limits.append(max(MIN_KEYS, key_count(MAX_SHARE, coreset.size), len(coreset.indices)))
        coreset.extend(least)
    counts = [min(least, len(coreset.indices)) for coreset in coresets]
    return share_by_radius(coresets, counts, limits, budget)


def share_by_radius(
    coresets: Sequence[GreedyCoreset], counts: Sequence[int], limits: Sequence[int], budget: int
) -> list[list[int]]:
    """Give keys, one by one, to the patch whose covering radius is the largest.

    Parameters
    ----------
    counts, limits
        per patch, the number of keys that it has chosen already, and the most it may have.
    budget
        keys of all patches together in the end.

    Returns
    -------
    per patch the chosen vectors: a prefix of its greedy order.
    """
    counts = list(counts)
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
