"""From normal features to a memory bank (paper, sections 2.1 and 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm.errors import ConfigError
from fapm.memory import coreset
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import Grid, cells_by_patch


@dataclass(frozen=True)
class Budget:
    """Number of keys that a layer may have.

    Attributes
    ----------
    shares
        per patch the keys of plain sampling.
    most
        largest number of keys of all its patches together, with any sampling; None if only
        ``shares`` count.
    """

    shares: tuple[int, ...]
    most: int | None = None


def budgets(
    sizes: Sequence[tuple[int, int]],
    pictures: int,
    *,
    grid: Grid,
    ratio: float,
    max_keys: int | None = None,
    inside: Sequence[NDArray[np.bool_] | None] | None = None,
) -> list[Budget]:
    """Number of keys that each layer may have.

    Parameters
    ----------
    sizes
        height and width of each layer's feature map, in cells.
    pictures
        number of pictures whose vectors ``ratio`` counts.
    grid, ratio, max_keys
        as in :class:`fapm.Config`. ``max_keys`` is divided in proportion to the keys that the
        layers, and then their patches, would have without it.
    inside
        per layer bool ``[H * W]``, the cells that are inspected; default: all.

    Raises
    ------
    ConfigError
        ``max_keys`` is less than a key for each patch of each layer.
    """
    plain = [
        [
            coreset.key_count(ratio, pictures * len(cells)) if len(cells) else 0
            for cells in cells_by_patch(*size, grid, inspected)
        ]
        for size, inspected in zip(sizes, inside or [None] * len(sizes), strict=True)
    ]
    if max_keys is None:
        return [Budget(tuple(shares)) for shares in plain]
    patches = [sum(share > 0 for share in shares) for shares in plain]
    if max_keys < sum(patches):
        raise ConfigError(
            f"max_keys: {max_keys} is too few for {sum(patches)} patches in {len(patches)} "
            f"layer{'s' * (len(patches) > 1)}, each of which needs a key"
        )
    most = coreset.share_out(max_keys, [sum(shares) for shares in plain], patches)
    return [
        Budget(
            tuple(map(min, shares, coreset.share_out(m, shares, [min(1, s) for s in shares]))), m
        )
        for m, shares in zip(most, plain, strict=True)
    ]


def build_bank(
    vectors: Callable[[int], Tensor],
    budget: Budget,
    size: tuple[int, int],
    *,
    grid: Grid,
    sampling: str,
    distance_unit: str,
    far_threshold: float,
    inside: NDArray[np.bool_] | None = None,
) -> MemoryBank:
    """Memorise the normal features of one layer (sections 2.1 and 2.2).

    Parameters
    ----------
    vectors
        returns the vectors of a patch in all training pictures,
        as :func:`fapm.memory.patches.patch_vectors`,
        float32 ``[N * V, C]``. It is called again whenever they are needed, so that the vectors of
        only one patch are held at a time.
    size
        height and width of the layer's feature map, in cells.
    grid, sampling, distance_unit, far_threshold
        as in :class:`fapm.Config`.
    inside
        bool ``[H * W]``, the cells that are inspected; default: all. A patch without any gets no
        keys, and ``vectors`` is not called for it.
    """
    height, width = size
    cells = cells_by_patch(height, width, grid, inside)
    inspected = [patch for patch, own in enumerate(cells) if len(own)]
    coresets = []
    for patch in inspected:
        chosen = coreset.GreedyCoreset(partial(vectors, patch))
        chosen.extend(budget.shares[patch])
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

    order = [np.array(i) for i in indices]
    own = [cells[patch] for patch in inspected]
    counts, radii = np.zeros(len(cells), np.int64), np.zeros(len(cells), np.float32)
    counts[inspected] = [len(i) for i in order]
    radii[inspected] = [c.radii[len(i) - 1] for c, i in zip(coresets, order, strict=True)]
    return MemoryBank(
        keys=np.concatenate(
            [vectors(p)[torch.from_numpy(i)].numpy() for p, i in zip(inspected, order, strict=True)]
        ),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        pictures=np.concatenate([i // len(p) for p, i in zip(own, order, strict=True)]),
        cells=np.concatenate([p[i % len(p)] for p, i in zip(own, order, strict=True)]),
        radii=radii,
        unit=unit,
        height=height,
        width=width,
        grid=grid,
        inside=inside,
    )
