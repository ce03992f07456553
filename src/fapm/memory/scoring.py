"""Turn distances into an anomaly map and an image score (paper, section 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor


def unify(distances: list[Tensor], indices: list[Tensor]) -> Tensor:
    """Sum the layers' distances on the finest grid, rank by rank.

    Parameters
    ----------
    distances
        per layer float ``[B, H_l * W_l, b]``, ascending along the last axis.
    indices
        per layer :func:`fapm.memory.geometry.upsample_index` onto the finest grid.

    Returns
    -------
    float ``[B, H * W, b]``
    """
    return torch.stack([fill_ranks(d)[:, i] for d, i in zip(distances, indices, strict=True)]).sum(
        dim=0
    )


def fill_ranks(distances: Tensor) -> Tensor:
    """Replace missing ranks by the last one present.

    A patch may have fewer keys than ``b``. A patch without any (possible in leave-one-out only)
    counts as distance 0, since nothing is known there.
    """
    # NaN stays: the output of a broken encoder must not pass for normal.
    missing = distances.isposinf()
    last = torch.where(missing, 0.0, distances).amax(dim=-1, keepdim=True)
    return torch.where(missing, last, distances)


def image_score(unified: Tensor, levels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Score of each picture, and the cell from which it comes.

    The worst cell has the largest unified distance. With its ``b`` nearest distances ``N_b``,
    ``score = (1 - max softmax(N_b)) * N_b[0]``: a worst cell whose nearest key stands apart from
    the next ones scores less. With ``b = 1`` the score is the distance itself.

    If ``levels`` are given, they choose the cell and replace ``N_b[0]`` in the score. They are
    smoothed distances, so that a single cell that its neighbours do not confirm does not decide.

    Parameters
    ----------
    unified
        float ``[B, H * W, b]``.
    levels
        float ``[B, H * W]``.

    Returns
    -------
    scores, cells
        float ``[B]`` and int64 ``[B]``.
    """
    levels = unified[:, :, 0] if levels is None else levels
    highest, cells = levels.max(dim=1)  # [B]
    nearest = unified[torch.arange(unified.shape[0]), cells]  # [B, b]; len() would fix B on export
    if nearest.shape[1] == 1:
        return highest, cells
    weight = 1 - torch.softmax(nearest, dim=1).amax(dim=1)
    return weight * highest, cells


def anomaly_map(unified: Tensor, size: tuple[int, int], smooth: tuple[Tensor, Tensor]) -> Tensor:
    """Anomaly map of each picture: ``U m U^T``.

    Parameters
    ----------
    unified
        float ``[B, H * W, b]``; only the nearest distance of each cell is used.
    size
        ``H, W``.
    smooth
        :func:`fapm.memory.geometry.smoothing_matrix` of rows ``[h, H]`` and of columns ``[w, W]``.

    Returns
    -------
    float ``[B, h, w]``
    """
    cells = unified[:, :, 0].reshape(-1, *size)  # [B, H, W]
    rows, columns = smooth
    return rows @ cells @ columns.T
