"""Cells and patches: how feature maps are cut up, and laid onto each other (paper, section 2.1).

NumPy alone, since whatever runs a detector needs it, with torch or without.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def patch_of_cell(height: int, width: int, grid: int) -> NDArray[np.int64]:
    """Number of the patch that each cell belongs to.

    Cell row ``y`` of ``H`` belongs to patch row ``floor(y G / H)``. Where ``G`` divides ``H`` these
    are the paper's equal patches. Elsewhere patch heights differ by at most one cell, and no cell
    is lost. A map with fewer cells than patches along an axis has one patch per cell there.

    Returns
    -------
    int64 ``[H, W]`` in ``0 .. P - 1``, row-major over the patch grid of :func:`patch_grid`.
    """
    rows, columns = patch_grid(height, width, grid)
    row = np.arange(height) * rows // height  # [H]
    column = np.arange(width) * columns // width  # [W]
    return np.asarray(row[:, None] * columns + column[None, :], np.int64)


def patch_grid(height: int, width: int, grid: int) -> tuple[int, int]:
    """Rows and columns of patches on a map of ``height`` x ``width`` cells."""
    return min(grid, height), min(grid, width)


def cells_by_patch(height: int, width: int, grid: int) -> list[NDArray[np.int64]]:
    """Per patch, the numbers ``y * W + x`` of its cells, int64 ``[V]``, ascending."""
    patch = patch_of_cell(height, width, grid).ravel()
    rows, columns = patch_grid(height, width, grid)
    return [np.flatnonzero(patch == p) for p in range(rows * columns)]


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


def upsample_index(
    size: tuple[int, int], onto: tuple[int, int], mode: str = "nearest"
) -> NDArray[np.int64]:
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
        return np.arange(to_height * to_width) * (height * width) // (to_height * to_width)
    rows = np.arange(to_height) * height // to_height
    columns = np.arange(to_width) * width // to_width
    return np.asarray(rows[:, None] * width + columns[None, :], np.int64).ravel()


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
