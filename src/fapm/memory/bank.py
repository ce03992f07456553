"""The memory bank of one layer: keys by patch, and the search for the nearest (section 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from fapm.errors import ConfigError
from fapm.memory import coreset
from fapm.memory.patches import neighbour_patches, patch_grid, patch_of_cell


@dataclass(frozen=True)
class Budget:
    """How many keys a layer may have.

    Attributes
    ----------
    shares
        per patch the keys of plain sampling.
    most
        keys of all its patches together, whatever the sampling; None where only ``shares`` count.
    """

    shares: tuple[int, ...]
    most: int | None = None


@dataclass(frozen=True)
class MemoryBank:
    """Keys of one layer, patch after patch.

    Attributes
    ----------
    keys
        float32 ``[K, C]``, all patches' keys one after the other.
    offsets
        int64 ``[P + 1]``; patch ``p`` owns ``keys[offsets[p] : offsets[p + 1]]``.
    pictures
        int64 ``[K]``, the training picture that each key came from.
    cells
        int64 ``[K]``, the cell of that picture, ``y * W + x``.
    radii
        float32 ``[P]``, covering radius of each patch, raw (not in ``unit``).
    unit
        what distances are divided by.
    height, width
        cells of the layer's feature map.
    grid
        ``G``: patches along an edge.
    """

    keys: Tensor
    offsets: Tensor
    pictures: Tensor
    cells: Tensor
    radii: Tensor
    unit: float
    height: int
    width: int
    grid: int
    _patches: list[Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_patches", cells_by_patch(self.height, self.width, self.grid))

    def search_sets(self, radius: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Per patch, its cells int64 ``[V]`` and the keys int64 ``[k]`` they are compared with."""
        rows, columns = patch_grid(self.height, self.width, self.grid)
        bounds = self.offsets.tolist()
        for p, neighbours in enumerate(neighbour_patches(rows, columns, radius)):
            searched = [torch.arange(bounds[q], bounds[q + 1]) for q in neighbours]
            yield self._patches[p], torch.cat(searched)


def cells_by_patch(height: int, width: int, grid: int) -> list[Tensor]:
    """Per patch, the numbers ``y * W + x`` of its cells, int64 ``[V]``, ascending."""
    patch = patch_of_cell(height, width, grid).flatten()
    rows, columns = patch_grid(height, width, grid)
    return [torch.nonzero(patch == p).flatten() for p in range(rows * columns)]


def patch_vectors(features: Tensor, patch: Tensor) -> Tensor:
    """Vectors of one patch, float ``[N * V, C]``, picture after picture.

    Parameters
    ----------
    features
        float ``[N, C, H, W]``; fastest in ``torch.channels_last``.
    patch
        its cells ``y * W + x``, int64 ``[V]``.
    """
    width = features.shape[-1]
    return features.permute(0, 2, 3, 1)[:, patch // width, patch % width].flatten(0, 1)


def budgets(
    sizes: Sequence[tuple[int, int]],
    pictures: int,
    *,
    grid: int,
    ratio: float,
    max_keys: int | None = None,
) -> list[Budget]:
    """How many keys each layer may have.

    Parameters
    ----------
    sizes
        height and width of each layer's feature map, in cells.
    pictures
        how many pictures' vectors ``ratio`` counts.
    grid, ratio, max_keys
        as in :class:`fapm.Config`. ``max_keys`` is shared out in proportion to what the layers, and
        then their patches, would have without it.

    Raises
    ------
    ConfigError
        ``max_keys`` is less than a key for each patch of each layer.
    """
    plain = [
        [coreset.key_count(ratio, pictures * len(cells)) for cells in cells_by_patch(*size, grid)]
        for size in sizes
    ]
    if max_keys is None:
        return [Budget(tuple(shares)) for shares in plain]
    patches = [len(shares) for shares in plain]
    if max_keys < sum(patches):
        raise ConfigError(
            f"max_keys: {max_keys} is too few for {sum(patches)} patches in {len(patches)} "
            f"layer{'s' * (len(patches) > 1)}, each of which needs a key"
        )
    most = coreset.share_out(max_keys, [sum(shares) for shares in plain], patches)
    return [
        Budget(tuple(map(min, shares, coreset.share_out(m, shares, [1] * len(shares)))), m)
        for m, shares in zip(most, plain, strict=True)
    ]


def build_bank(
    vectors: Callable[[int], Tensor],
    budget: Budget,
    *,
    height: int,
    width: int,
    grid: int,
    sampling: str,
    distance_unit: str,
    far_threshold: float,
) -> MemoryBank:
    """Memorise the normal features of one layer (sections 2.1 and 2.2).

    Parameters
    ----------
    vectors
        returns the vectors of a patch in all training pictures, as :func:`patch_vectors` does,
        float32 ``[N * V, C]``. It is called again whenever they are needed, so that one patch's
        vectors are held at a time.
    height, width
        cells of the layer's feature map.
    grid, sampling, distance_unit, far_threshold
        as in :class:`fapm.Config`.
    """
    cells = cells_by_patch(height, width, grid)
    coresets = []
    for patch, share in enumerate(budget.shares):
        chosen = coreset.GreedyCoreset(partial(vectors, patch))
        chosen.extend(share)
        coresets.append(chosen)

    unit = coreset.median_radius(coresets) if distance_unit == "median-radius" else 1.0
    if sampling == "near-far":
        indices = coreset.sample_near_far(
            coresets, unit=unit, far_threshold=far_threshold, most=budget.most
        )
    elif sampling == "equal-radius":
        indices = coreset.sample_equal_radius(coresets, most=budget.most)
    else:
        indices = [c.indices for c in coresets]

    order = [torch.tensor(i) for i in indices]
    keys = [vectors(patch)[i] for patch, i in enumerate(order)]
    return MemoryBank(
        keys=torch.cat(keys),
        offsets=torch.tensor([0, *map(len, order)]).cumsum(0),
        pictures=torch.cat([i // len(p) for p, i in zip(cells, order, strict=True)]),
        cells=torch.cat([p[i % len(p)] for p, i in zip(cells, order, strict=True)]),
        radii=torch.tensor([c.radii[len(i) - 1] for c, i in zip(coresets, order, strict=True)]),
        unit=unit,
        height=height,
        width=width,
        grid=grid,
    )


def nearest_keys(
    features: Tensor,
    bank: MemoryBank,
    *,
    count: int,
    radius: int = 0,
    without_pictures: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Distances to the nearest keys of each cell's own patch (section 2.3).

    Parameters
    ----------
    features
        aggregated, float32 ``[B, C, H, W]``.
    count
        ``b``: how many nearest keys.
    radius
        patches up to this far away are searched too.
    without_pictures
        per row of the batch a training picture whose keys do not count, for leave-one-out.

    Returns
    -------
    distances, keys
        float32 ``[B, H * W, b]`` ascending, in the bank's unit, and int64 ``[B, H * W, b]`` rows
        of ``bank.keys``. Where a patch has fewer keys than ``b`` the distance is infinite.
    """
    batch, _, height, width = features.shape
    if (height, width) != (bank.height, bank.width):
        raise ValueError(
            f"features of {height} x {width} cells against a memory of {bank.height} x {bank.width}"
        )
    distances = torch.full((batch, height * width, count), torch.inf)
    keys = torch.zeros((batch, height * width, count), dtype=torch.int64)
    for patch, searched in bank.search_sets(radius):
        squared = pairwise_squared(patch_vectors(features, patch), bank.keys[searched])
        squared = squared.view(batch, len(patch), -1)  # [B, V, k]
        if without_pictures is not None:
            own = bank.pictures[searched][None] == torch.tensor(without_pictures)[:, None]
            squared = squared.masked_fill(own[:, None], torch.inf)
        best, position = squared.topk(min(count, len(searched)), largest=False)
        distances[:, patch, : best.shape[-1]] = best.sqrt() / bank.unit
        keys[:, patch, : best.shape[-1]] = searched[position]
    return distances, keys


def pairwise_squared(queries: Tensor, keys: Tensor) -> Tensor:
    """Squared Euclidean distances ``[Q, k]`` of ``queries [Q, C]`` to ``keys [k, C]``.

    Both are moved by the keys' mean first: distances stay, norms shrink, and
    ``|q|^2 + |k|^2 - 2qk`` keeps its digits where a query lies close to a key. What is left of a
    distance by rounding alone is 0: a picture equals its copy.
    """
    centre = keys.mean(dim=0)
    queries, keys = queries - centre, keys - centre
    query_squares = queries.square().sum(dim=1, keepdim=True)  # [Q, 1]
    key_squares = keys.square().sum(dim=1)  # [k]
    squared = torch.addmm(key_squares, queries, keys.T, alpha=-2).add_(query_squares)
    noise = coreset.ROUNDINGS * torch.finfo(squared.dtype).eps * (query_squares + key_squares.max())
    return squared.masked_fill_(squared < noise, 0)
