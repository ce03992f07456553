"""From normal features to a memory bank (paper, sections 2.1 and 2.2)."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from fapm.memory import coreset
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import cells_by_patch
from fapm.memory.patches import patch_vectors


def build_bank(
    features: Tensor,
    *,
    grid: int,
    ratio: float,
    sampling: str,
    distance_unit: str,
    far_threshold: float,
) -> MemoryBank:
    """Memorise the normal features of one layer (sections 2.1 and 2.2).

    Parameters
    ----------
    features
        aggregated, float32 ``[N, C, H, W]`` of the ``N`` training pictures.
    grid, ratio, sampling, distance_unit, far_threshold
        as in :class:`fapm.Config`.
    """
    height, width = features.shape[-2:]
    cells = cells_by_patch(height, width, grid)
    coresets = []
    for patch in cells:
        chosen = coreset.GreedyCoreset(partial(patch_vectors, features, patch))
        chosen.extend(coreset.key_count(ratio, len(features) * len(patch)))
        coresets.append(chosen)

    unit = coreset.median_radius(coresets) if distance_unit == "median-radius" else 1.0
    if sampling == "near-far":
        indices = coreset.sample_near_far(coresets, unit=unit, far_threshold=far_threshold)
    elif sampling == "equal-radius":
        indices = coreset.sample_equal_radius(coresets)
    else:
        indices = [c.indices for c in coresets]

    order = [np.array(i) for i in indices]
    keys = [patch_vectors(features, p)[i].numpy() for p, i in zip(cells, order, strict=True)]
    return MemoryBank(
        keys=np.concatenate(keys),
        offsets=np.cumsum([0, *map(len, order)]),
        pictures=np.concatenate([i // len(p) for p, i in zip(cells, order, strict=True)]),
        cells=np.concatenate([p[i % len(p)] for p, i in zip(cells, order, strict=True)]),
        radii=np.array(
            [c.radii[len(i) - 1] for c, i in zip(coresets, order, strict=True)], np.float32
        ),
        unit=unit,
        height=height,
        width=width,
        grid=grid,
    )
