"""Cells and patches: how feature maps are cut up (paper, section 2.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def aggregate(features: Tensor) -> Tensor:
    """Make each cell aware of its 3 x 3 neighbourhood by average pooling.

    The paper calls the vectors "locally aware"; the authors' code pools with stride 1 and padding
    1, zeros counted, on each feature map, and so does this.

    Parameters
    ----------
    features
        float ``[B, C, H, W]``.

    Returns
    -------
    float ``[B, C, H, W]``
    """
    return F.avg_pool2d(features, kernel_size=3, stride=1, padding=1)


def patch_of_cell(height: int, width: int, grid: int) -> Tensor:
    """Number of the patch that each cell belongs to.

    Cell row ``y`` of ``H`` belongs to patch row ``floor(y G / H)``. Where ``G`` divides ``H`` these
    are the paper's equal patches. Elsewhere patch heights differ by at most one cell, and no cell
    is lost. A map with fewer cells than patches along an axis has one patch per cell there.

    Returns
    -------
    int64 ``[H, W]`` in ``0 .. P - 1``, row-major over the patch grid of :func:`patch_grid`.
    """
    rows, columns = patch_grid(height, width, grid)
    row = torch.arange(height) * rows // height  # [H]
    column = torch.arange(width) * columns // width  # [W]
    return row[:, None] * columns + column[None, :]


def patch_grid(height: int, width: int, grid: int) -> tuple[int, int]:
    """Rows and columns of patches on a map of ``height`` x ``width`` cells."""
    return min(grid, height), min(grid, width)


def neighbour_patches(rows: int, columns: int, radius: int) -> list[list[int]]:
    """Patches searched for each patch: itself and those up to ``radius`` away on the patch grid.

    Returns
    -------
    ``P`` sorted lists; ``radius = 0`` (the paper) gives ``[[0], [1], ...]``.
    """
    return [
        [
            r * columns + c
            for r in range(max(0, row - radius), min(rows, row + radius + 1))
            for c in range(max(0, column - radius), min(columns, column + radius + 1))
        ]
        for row in range(rows)
        for column in range(columns)
    ]


def concatenate_layers(features: list[Tensor]) -> Tensor:
    """Upsample coarser maps to the finest and concatenate channels, as PatchCore does.

    This is what the paper's layer-wise memory avoids; it serves the ablation (Table 2, A and B).

    Parameters
    ----------
    features
        per layer float ``[B, C_l, H_l, W_l]``.

    Returns
    -------
    float ``[B, sum(C_l), H, W]`` with ``H, W`` of the finest layer.
    """
    finest = max((f.shape[-2:] for f in features), key=lambda size: size[0] * size[1])
    return torch.cat(
        [
            f if f.shape[-2:] == finest else F.interpolate(f, size=finest, mode="nearest")
            for f in features
        ],
        dim=1,
    )
