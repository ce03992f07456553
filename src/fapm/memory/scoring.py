"""From distances to an anomaly map and an image score (paper, section 2.3)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upsample_index(size: tuple[int, int], onto: tuple[int, int], mode: str = "nearest") -> Tensor:
    """Which coarse cell each cell of a finer map takes its distance from.

    Parameters
    ----------
    size, onto
        height and width of the coarse and of the finer map, in cells.
    mode
        ``"nearest"``, or ``"row-order"``: the authors' code repeats cells in row order, so that a
        cell's distance does not land where the cell lies. For comparison with their figures only.

    Returns
    -------
    int64 ``[H * W]`` of the finer map, numbers ``y * W + x`` of the coarse map.
    """
    (height, width), (to_height, to_width) = size, onto
    if mode == "row-order":
        return torch.arange(to_height * to_width) * (height * width) // (to_height * to_width)
    rows = torch.arange(to_height) * height // to_height
    columns = torch.arange(to_width) * width // to_width
    return (rows[:, None] * width + columns[None, :]).flatten()


def unify(distances: list[Tensor], indices: list[Tensor]) -> Tensor:
    """Sum the layers' distances on the finest grid, rank by rank.

    Parameters
    ----------
    distances
        per layer float ``[B, H_l * W_l, b]``, ascending along the last axis.
    indices
        per layer :func:`upsample_index` onto the finest grid.

    Returns
    -------
    float ``[B, H * W, b]``
    """
    return torch.stack([fill_ranks(d)[:, i] for d, i in zip(distances, indices, strict=True)]).sum(
        dim=0
    )


def fill_ranks(distances: Tensor) -> Tensor:
    """Stand-ins for keys that are not there: a missing rank takes the last one present.

    A patch may have fewer keys than ``b``; one without any (possible in leave-one-out only)
    counts as distance 0, since nothing is known there.
    """
    # NaN stays: what a broken encoder gives must not pass for normal.
    known = torch.where(distances.isposinf(), 0.0, distances)
    return known.cummax(dim=-1).values


def image_score(unified: Tensor) -> tuple[Tensor, Tensor]:
    """Score of each picture and the cell it comes from.

    At the cell with the largest unified distance ``N_b`` are the ``b`` nearest distances, and
    ``score = (1 - max softmax(N_b)) * N_b[0]``: a worst cell whose nearest key stands apart from
    the next ones scores less. With ``b = 1`` the score is the distance itself.

    Parameters
    ----------
    unified
        float ``[B, H * W, b]``.

    Returns
    -------
    scores, cells
        float ``[B]`` and int64 ``[B]``.
    """
    cells = unified[:, :, 0].argmax(dim=1)  # [B]
    nearest = unified[torch.arange(len(unified)), cells]  # [B, b]
    if nearest.shape[1] == 1:
        return nearest[:, 0], cells
    weight = 1 - torch.softmax(nearest, dim=1).amax(dim=1)
    return weight * nearest[:, 0], cells


def smoothing_matrix(cells: int, pixels: int, sigma: float) -> NDArray[np.float64]:
    """Bilinear upsampling followed by a Gaussian, as one matrix ``U``.

    Both are linear and separable, so that a map ``m`` of cells becomes ``U m U^T``. Bilinear as
    ``torch.nn.functional.interpolate`` with ``align_corners=False``; Gaussian as
    ``scipy.ndimage.gaussian_filter``: cut at 4 sigma, mirrored at the border.

    Returns
    -------
    float64 ``[pixels, cells]``; every row sums to 1.
    """
    centre = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    centre = np.clip(centre, 0, cells - 1)
    left = np.minimum(centre.astype(np.int64), max(cells - 2, 0))
    right = np.minimum(left + 1, cells - 1)
    upsampling = np.zeros((pixels, cells))
    rows = np.arange(pixels)
    np.add.at(upsampling, (rows, left), 1 - (centre - left))
    np.add.at(upsampling, (rows, right), centre - left)
    if sigma == 0:
        return upsampling

    reach = int(4 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    kernel /= kernel.sum()
    # Mirrored with the edge repeated: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ...
    source = (rows[:, None] + steps[None, :]) % (2 * pixels)
    source = np.where(source < pixels, source, 2 * pixels - 1 - source)
    gaussian = np.zeros((pixels, pixels))
    np.add.at(gaussian, (np.repeat(rows, len(steps)), source.ravel()), np.tile(kernel, pixels))
    return gaussian @ upsampling


def anomaly_map(unified: Tensor, size: tuple[int, int], smooth: tuple[Tensor, Tensor]) -> Tensor:
    """Anomaly map of each picture: ``U m U^T``.

    Parameters
    ----------
    unified
        float ``[B, H * W, b]``; the nearest distance of each cell is what counts.
    size
        ``H, W``.
    smooth
        :func:`smoothing_matrix` of rows ``[h, H]`` and of columns ``[w, W]``.

    Returns
    -------
    float ``[B, h, w]``
    """
    cells = unified[:, :, 0].reshape(-1, *size)  # [B, H, W]
    rows, columns = smooth
    return rows @ cells @ columns.T
