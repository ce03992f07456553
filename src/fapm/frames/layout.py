"""Frames: what size pictures are brought to, and the tiles that large ones are cut into.

A picture is resized to a frame, and the encoder sees the frame. A large picture keeps its size, and
the encoder sees one overlapping tile of it after the other. Their feature maps are then laid side
by side: to memory and search they are one large map whose every place has a memory of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.errors import ConfigError
from fapm.memory import geometry
from fapm.pictures.resize import Interpolation, resize_image, resize_map, resize_mask, scale_window
from fapm.pictures.sizes import SHAPE, difference, near_shape, pixel_size

# The longer edge of a frame that keeps its aspect ratio is a multiple of this: the stride of the
# deepest layer used by default.
_STRIDE = 16
# Pixels of a tiled frame along one pixel of its map: cells are 8 wide, and the map is smooth.
_MAP_STEP = 4
_MOST_TILES = 4096

# x, y, width and height.
Rectangle: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Axis:
    """One edge of a frame.

    Attributes
    ----------
    pixels
        of the frame.
    tile
        pixels of a tile; all of them where the frame is not cut.
    starts
        where the tiles begin, ascending; they cover the edge.
    shown
        pixels of the anomaly map.
    canvas
        pixels that the whole picture's edge is resized to; the frame is the centre of these.
    """

    pixels: int
    tile: int
    starts: tuple[int, ...]
    shown: int
    canvas: int

    @classmethod
    def whole(cls, pixels: int, canvas: int | None = None) -> Axis:
        """An edge that is not cut into tiles: the centre of ``canvas`` pixels, or all of them."""
        return cls(pixels, pixels, (0,), pixels, canvas or pixels)

    @classmethod
    def cut(cls, pixels: int, tile: int, overlap: int) -> Axis:
        """An edge of as few tiles as overlap by at least ``overlap`` pixels, evenly spread."""
        count = tile_count(pixels, tile, overlap)
        starts = np.linspace(0, pixels - tile, count).round().astype(int)
        return cls(pixels, tile, tuple(starts.tolist()), math.ceil(pixels / _MAP_STEP), pixels)

    @property
    def window(self) -> slice:
        """Pixels of the canvas that are the frame."""
        start = (self.canvas - self.pixels) // 2
        return slice(start, start + self.pixels)

    def on_map(self, pixels: int) -> int:
        """So many pixels of the frame, in pixels of the anomaly map."""
        return pixels * self.shown // self.pixels

    def in_picture(self, begin: float, length: float) -> tuple[float, float]:
        """A stretch of the frame's edge, in shares of it, in shares of the picture's edge."""
        seen = self.pixels / self.canvas
        return self.window.start / self.canvas + begin * seen, length * seen

    def smoothing(self, cells: int, sigma: float) -> NDArray[np.float64]:
        """:func:`fapm.memory.geometry.smoothing_matrix` from the cells of all tiles to the map.

        Where tiles overlap, each counts by how far the place is from its border: there is no seam.

        Parameters
        ----------
        cells
            of all tiles, one after the other.
        sigma
            of the Gaussian, in pixels of the frame.

        Returns
        -------
        float64 ``[shown, cells]``; every row sums to 1.
        """
        if len(self.starts) == 1:
            return geometry.smoothing_matrix(cells, self.shown, sigma * self.shown / self.pixels)
        own = cells // len(self.starts)
        places = (np.arange(self.shown) + 0.5) * self.pixels / self.shown
        blocks = []
        for start in self.starts:
            depth = np.minimum(places - start, start + self.tile - places)
            # On a border where nothing overlaps, both tiles count, and not none.
            depth = np.where(depth >= 0, depth.clip(1e-3), 0)[:, None]
            here = (places - start) * own / self.tile
            blocks.append(depth * geometry.interpolation_matrix(own, here))
        blended = np.concatenate(blocks, axis=1)
        blended /= blended.sum(axis=1, keepdims=True)
        if sigma == 0:
            return np.asarray(blended, np.float64)
        smooth = geometry.gaussian_matrix(self.shown, sigma * self.shown / self.pixels)
        return np.asarray(smooth @ blended, np.float64)

    def cell_smoothing(self, cells: int, sigma: float) -> NDArray[np.float64]:
        """A Gaussian over the cells of each tile by itself, float64 ``[cells, cells]``."""
        own = cells // len(self.starts)
        smooth = geometry.smoothing_matrix(own, own, sigma)
        return np.asarray(np.kron(np.eye(len(self.starts)), smooth), np.float64)

    def coverage(self, cells: int) -> NDArray[np.float64]:
        """:func:`fapm.memory.geometry.coverage_matrix` of all tiles, ``[cells, pixels]``."""
        own = cells // len(self.starts)
        covered = np.zeros((cells, self.pixels))
        for number, start in enumerate(self.starts):
            rows = slice(number * own, (number + 1) * own)
            covered[rows, start : start + self.tile] = geometry.coverage_matrix(own, self.tile)
        return covered

    def bounds(self, cell: int, cells: int) -> tuple[float, float]:
        """Begin and length of a cell, in shares of the edge."""
        number, position = divmod(cell, cells // len(self.starts))
        extent = self.tile * len(self.starts) / cells
        return (self.starts[number] + position * extent) / self.pixels, extent / self.pixels


@dataclass(frozen=True)
class Layout:
    """A frame's size, and its tiles.

    Attributes
    ----------
    rows, columns
        its edges, from top to bottom and from left to right.
    picture
        height and width of the pictures it was made for; those of quite another shape do not fit.
        None: all pictures are squashed into it.
    """

    rows: Axis
    columns: Axis
    picture: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the frame."""
        return self.rows.pixels, self.columns.pixels

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Height and width of what the encoder sees."""
        return self.rows.tile, self.columns.tile

    @property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of the anomaly map."""
        return self.rows.shown, self.columns.shown

    @property
    def tiling(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return len(self.rows.starts), len(self.columns.starts)

    @property
    def tiles(self) -> int:
        """The number of tiles of a frame."""
        return math.prod(self.tiling)

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width that the whole picture is resized to; the frame is the centre of it."""
        return self.rows.canvas, self.columns.canvas

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that are the frame."""
        return self.rows.window, self.columns.window

    def frame(
        self,
        picture: NDArray[np.uint8],
        interpolation: Interpolation,
        extent: tuple[float, float] | None = None,
    ) -> NDArray[np.uint8]:
        """A picture, RGB uint8 ``[H, W, 3]``, resized and cropped: contiguous uint8 ``[h, w, 3]``.

        ``extent`` is that of :func:`fapm.pictures.resize.resize_image`.
        """
        resized = resize_image(picture, *self.canvas, interpolation, extent)
        return np.ascontiguousarray(resized[self.window])

    def inside(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Pixels of the frame, bool ``[h, w]``, of which a picture's mask covers half or more.

        The mask is bool ``[H, W]``.
        """
        height, width = self.canvas
        share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(share[self.window] >= 0.5)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A picture's mask, bool ``[H, W]``, at the pixels of the anomaly map: nearest."""
        if self.tiles > 1:
            return resize_mask(mask, *self.map_shape)
        return np.ascontiguousarray(resize_mask(mask, *self.canvas)[self.window])

    def restore(
        self, anomaly_map: NDArray[np.float32], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """The way back from :meth:`frame`: a map of the frame in the geometry of the picture.

        Bilinear. The map is 0 where the frame is only the centre of the picture and nothing was
        seen.

        Parameters
        ----------
        anomaly_map
            float32 of :attr:`map_shape`.
        size
            height and width of the picture.
        """
        if self.canvas == self.shape:
            return resize_map(anomaly_map, *size)
        # Bordered by its own edge, not by zeros: interpolation would fade the map along the crop.
        border = [(w.start, c - w.stop) for w, c in zip(self.window, self.canvas, strict=True)]
        resized = resize_map(np.pad(anomaly_map, border, mode="edge"), *size)
        restored = np.zeros(size, np.float32)
        seen = tuple(map(scale_window, self.window, self.canvas, size))
        restored[seen] = resized[seen]
        return restored

    def cell_box(self, cell: int, cells: tuple[int, int]) -> Rectangle:
        """A cell of a map of ``H, W`` cells, in shares of the frame's edges."""
        y, x = divmod(cell, cells[1])
        (top, height), (left, width) = (
            self.rows.bounds(y, cells[0]),
            self.columns.bounds(x, cells[1]),
        )
        return left, top, width, height

    def restore_box(self, box: Rectangle) -> Rectangle:
        """A rectangle in shares of the frame's edges, in shares of the picture's edges."""
        left, top, width, height = box
        left, width = self.columns.in_picture(left, width)
        top, height = self.rows.in_picture(top, height)
        return left, top, width, height

    def cut(self, frame: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """A frame's tiles, uint8 ``[h, w, 3]`` each, row by row; the frame itself if it is one."""
        if self.tiles == 1:
            return [frame]
        height, width = self.tile_shape
        return [
            np.ascontiguousarray(frame[top : top + height, left : left + width])
            for top in self.rows.starts
            for left in self.columns.starts
        ]

    def smoothing(
        self, cells: tuple[int, int], sigma: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """:meth:`Axis.smoothing` of rows and of columns, for a map of ``H, W`` cells."""
        return self.rows.smoothing(cells[0], sigma), self.columns.smoothing(cells[1], sigma)

    def cell_smoothing(
        self, cells: tuple[int, int], sigma: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """:meth:`Axis.cell_smoothing` of rows and of columns, for a map of ``H, W`` cells."""
        return self.rows.cell_smoothing(cells[0], sigma), self.columns.cell_smoothing(
            cells[1], sigma
        )

    def inside_cells(
        self,
        roi: NDArray[np.bool_],
        sizes: Sequence[tuple[int, int]],
        upsampling: str = "nearest",
    ) -> list[NDArray[np.bool_]]:
        """:func:`fapm.memory.geometry.inside_cells`, of all tiles; ``roi`` is bool ``[h, w]``."""
        height, width = max(sizes, key=math.prod)
        coverage = self.rows.coverage(height), self.columns.coverage(width)
        return geometry.inside_cells(roi, sizes, upsampling, coverage)

    def inspected_tiles(
        self, inside: Sequence[NDArray[np.bool_] | None], sizes: Sequence[tuple[int, int]]
    ) -> NDArray[np.bool_]:
        """Whether each tile has cells that are inspected, bool ``[T]``.

        Parameters
        ----------
        inside
            per memory bank bool ``[H * W]``; None: all of its cells.
        sizes
            height and width of the layers' maps, in cells.
        """
        finest = max((cells for cells in inside if cells is not None), key=len, default=None)
        if finest is None:
            return np.ones(self.tiles, np.bool_)
        (height, width), (rows, columns) = max(sizes, key=math.prod), self.tiling
        by_tile = finest.reshape(rows, height // rows, columns, width // columns)
        return np.asarray(by_tile.any(axis=(1, 3)).ravel(), np.bool_)

    def on_map(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values per frame pixel ``[h, w]``, sampled at the map's pixels."""
        if self.map_shape == self.shape:
            return values
        rows, columns = (
            (np.arange(axis.shown) * 2 + 1) * axis.pixels // (2 * axis.shown)
            for axis in (self.rows, self.columns)
        )
        return values[np.ix_(rows, columns)]

    def side_by_side(self, cells: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the map that the tiles' maps of ``cells`` make together."""
        return cells[0] * self.tiling[0], cells[1] * self.tiling[1]

    def grid(self, patches: int) -> geometry.Grid:
        """Rows and columns of patches where a square frame, or each tile, has ``patches`` each."""
        if self.tiles > 1:
            return self.side_by_side((patches, patches))
        height, width = self.shape
        if height == width:
            return patches
        short = min(self.shape)
        return round(patches * height / short), round(patches * width / short)

    def error(self, size: tuple[int, int]) -> str:
        """Why a picture of ``size`` (height, width) does not fit; empty if it does."""
        if self.picture is None or near_shape(self.picture, size):
            return ""
        return (
            f"{pixel_size(size)} pixels, but the detector is for pictures of "
            f"{pixel_size(self.picture)}; they may be larger or smaller, but not of another shape"
        )

    def stretched(self, sizes: Sequence[tuple[int, int]]) -> str:
        """A line on pictures of these sizes (height, width) that change shape; empty if none."""
        if self.picture is None:
            return ""
        off = [difference(self.picture, size) for size in sizes]
        changed = [difference for difference in off if difference >= SHAPE]
        if not changed:
            return ""
        are = "is" if len(changed) == 1 else "are"
        return (
            f"{len(changed)} of {len(sizes)} picture{'' if len(sizes) == 1 else 's'} {are} of "
            f"another shape than {pixel_size(self.picture)} pixels, by up to "
            f"{100 * max(changed):.1f} %, and {are} resized to it"
        )


def layout_of(config: Config, picture: tuple[int, int] | None = None) -> Layout:
    """The frame that ``config`` makes of pictures.

    Parameters
    ----------
    picture
        height and width of the pictures; needed where ``config.follows_pictures``.

    Raises
    ------
    ConfigError
        Tiles are larger than the pictures.
    """
    if not config.follows_pictures:
        edge = Axis.whole(config.input_size, config.resize)
        return Layout(edge, edge)
    if picture is None:
        raise ConfigError("the size of the pictures is needed, and none could be read")
    if config.tile is None:
        short = min(picture)
        rows, columns = (Axis.whole(_kept(config.resize, edge / short)) for edge in picture)
        return Layout(rows, columns, picture)
    height, width = (round(edge * config.tile_scale) for edge in picture)
    if config.tile > min(height, width):
        scaled = "" if config.tile_scale == 1 else f" (scaled by {config.tile_scale:g})"
        raise ConfigError(
            f"tile: {config.tile} is larger than the pictures of {pixel_size((height, width))} "
            f"pixels{scaled}; use at most {min(height, width)}, or leave it out"
        )
    overlap = config.tile_overlap
    count = math.prod(tile_count(edge, config.tile, overlap) for edge in (height, width))
    if count > _MOST_TILES:
        raise ConfigError(
            f"tile: pictures of {pixel_size((height, width))} pixels make {count:,} tiles of "
            f"{config.tile}, more than {_MOST_TILES:,}; use larger ones, or a smaller --tile-scale"
        )
    rows, columns = (Axis.cut(edge, config.tile, overlap) for edge in (height, width))
    return Layout(rows, columns, picture)


def _kept(shorter: int, ratio: float) -> int:
    """An edge of a frame, ``ratio`` times the shorter one."""
    return shorter if ratio == 1 else round(shorter * ratio / _STRIDE) * _STRIDE


def tile_count(pixels: int, tile: int, overlap: int) -> int:
    """The number of tiles that cover an edge and overlap by at least ``overlap`` pixels."""
    return 1 + math.ceil((pixels - tile) / (tile - overlap))
