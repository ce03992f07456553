"""Cells and patches: dividing feature maps and laying them onto each other (paper, section 2.1).

This module needs NumPy alone, since every engine uses it, with torch or without.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# Patches along both edges of a map, or rows and columns of them.
Grid: TypeAlias = "int | tuple[int, int]"

# A pixel of the map has no value if inspected cells make up less than this share of it.
_KNOWN = 1e-3


def patch_of_cell(height: int, width: int, grid: Grid) -> NDArray[np.int64]:
    """Number of the patch to which each cell belongs.

    Cell row ``y`` of ``H`` belongs to patch row ``floor(y G / H)``. If ``G`` divides ``H`` these
    are the paper's equal patches. Otherwise patch heights differ by at most one cell, and no cell
    is lost. A map with fewer cells than patches along an axis has one patch per cell there. If
    ``R`` equal tiles lie one below the other, with ``R G`` rows of patches, no patch has cells of
    two tiles.

    Returns
    -------
    int64 ``[H, W]`` in ``0 .. P - 1``, row-major over the patch grid of :func:`patch_grid`.
    """
    rows, columns = patch_grid(height, width, grid)
    row = np.arange(height) * rows // height  # [H]
    column = np.arange(width) * columns // width  # [W]
    return np.asarray(row[:, None] * columns + column[None, :], np.int64)


def patch_grid(height: int, width: int, grid: Grid) -> tuple[int, int]:
    """Rows and columns of patches on a map of ``height`` x ``width`` cells."""
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    return min(rows, height), min(columns, width)


def cells_by_patch(
    height: int, width: int, grid: Grid, inside: NDArray[np.bool_] | None = None
) -> list[NDArray[np.int64]]:
    """Per patch, the numbers ``y * W + x`` of its cells, int64 ``[V]``, ascending.

    Parameters
    ----------
    inside
        bool ``[H * W]``, the cells that count; a patch without any is empty.
    """
    patch = patch_of_cell(height, width, grid).ravel()
    if inside is not None:
        patch = np.where(inside, patch, -1)
    patches = math.prod(patch_grid(height, width, grid))
    order = np.argsort(patch, kind="stable")
    bounds = np.searchsorted(patch[order], np.arange(patches + 1))
    return [order[start:stop] for start, stop in itertools.pairwise(bounds)]


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
    """Number of the coarse cell from which each cell of a finer map takes its distance.

    Parameters
    ----------
    size, onto
        height and width of the coarse and of the finer map, in cells.
    mode
        ``"nearest"``, or ``"row-order"``: the authors' code repeats cells in row order, so that a
        distance does not land at the place of its cell. It serves for comparison only.

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


def inside_cells(
    roi: NDArray[np.bool_],
    sizes: Sequence[tuple[int, int]],
    upsampling: str = "nearest",
    coverage: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> list[NDArray[np.bool_]]:
    """Select the cells that are inspected if there is a region of interest.

    A cell of the finest map is inspected if at least half of its square in the frame is inside. A
    cell of a coarser map is inspected if an inspected cell takes its distance from it.

    Parameters
    ----------
    roi
        bool ``[h, w]``, True inside, in the frame.
    sizes
        height and width of each layer's map, in cells.
    upsampling
        as ``mode`` of :func:`upsample_index`.
    coverage
        :func:`coverage_matrix` of the finest map's rows ``[H, h]`` and columns ``[W, w]``; by
        default its cells divide the frame evenly.

    Returns
    -------
    per layer bool ``[H * W]``
    """
    onto = finest(sizes)
    rows, columns = coverage or [
        coverage_matrix(cells, edge) for cells, edge in zip(onto, roi.shape, strict=True)
    ]
    counted = np.flatnonzero(rows @ roi @ columns.T >= 0.5 - 1e-9)
    layers = []
    for size in sizes:
        inside = np.zeros(size[0] * size[1], np.bool_)
        inside[upsample_index(size, onto, upsampling)[counted]] = True
        layers.append(inside)
    return layers


def coverage_matrix(cells: int, pixels: int) -> NDArray[np.float64]:
    """Share of each cell that each pixel of an edge covers, float64 ``[cells, pixels]``."""
    starts = np.arange(cells)[:, None] * pixels / cells
    pixel = np.arange(pixels)
    covered = np.minimum(starts + pixels / cells, pixel + 1) - np.maximum(starts, pixel)
    return np.asarray(np.clip(covered, 0, None) * cells / pixels)


def map_weights(
    roi: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    smooth: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Factor for each pixel of the smoothed map of inspected cells.

    It is 0 outside. Inside, it makes each pixel the mean of inspected cells alone, so that the map
    does not fade towards the outline.

    Parameters
    ----------
    roi, inside
        bool ``[h, w]`` where the map is, and bool ``[H * W]`` of the finest layer's cells.
    smooth
        :func:`smoothing_matrix` of rows ``[h, H]`` and of columns ``[w, W]``.

    Returns
    -------
    float64 ``[h, w]``
    """
    rows, columns = smooth
    weight = rows @ inside.reshape(rows.shape[1], columns.shape[1]) @ columns.T
    known = roi & (weight > _KNOWN)
    return np.asarray(np.where(known, 1 / np.where(known, weight, 1), 0))


def smoothing_matrix(cells: int, pixels: int, sigma: float) -> NDArray[np.float64]:
    """Bilinear upsampling followed by a Gaussian, as one matrix ``U``.

    Both are linear and separable, so a map ``m`` of cells becomes ``U m U^T``. The upsampling is
    that of ``torch.nn.functional.interpolate`` with ``align_corners=False``. The Gaussian is that
    of ``scipy.ndimage.gaussian_filter``: cut off at 4 sigma and mirrored at the border.

    Returns
    -------
    float64 ``[pixels, cells]``; every row sums to 1.
    """
    upsampling = interpolation_matrix(cells, (np.arange(pixels) + 0.5) * cells / pixels)
    return upsampling if sigma == 0 else gaussian_matrix(pixels, sigma) @ upsampling


def interpolation_matrix(cells: int, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear interpolation between the centres of cells, flat beyond the outer ones.

    Parameters
    ----------
    places
        float64 ``[n]``, the positions at which to interpolate, in cells from the edge: cell ``i``
        lies from ``i`` to ``i + 1``.

    Returns
    -------
    float64 ``[n, cells]``; every row sums to 1.
    """
    centre = np.clip(places - 0.5, 0, cells - 1)
    left = np.minimum(centre.astype(np.int64), max(cells - 2, 0))
    right = np.minimum(left + 1, cells - 1)
    matrix = np.zeros((len(places), cells))
    rows = np.arange(len(places))
    np.add.at(matrix, (rows, left), 1 - (centre - left))
    np.add.at(matrix, (rows, right), centre - left)
    return matrix


def gaussian_matrix(pixels: int, sigma: float) -> NDArray[np.float64]:
    """Gaussian along an edge, cut off at 4 sigma and mirrored, float64 ``[pixels, pixels]``."""
    rows, reach = np.arange(pixels), int(4 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    kernel /= kernel.sum()
    # Mirrored with the edge repeated: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ...
    source = (rows[:, None] + steps[None, :]) % (2 * pixels)
    source = np.where(source < pixels, source, 2 * pixels - 1 - source)
    gaussian = np.zeros((pixels, pixels))
    np.add.at(gaussian, (np.repeat(rows, len(steps)), source.ravel()), np.tile(kernel, pixels))
    return gaussian


def finest(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The height and width of the map with the most cells, the first of several."""
    return max(sizes, key=lambda size: size[0] * size[1])
