"""Keep the features of all training pictures for the coreset, in memory or in a file."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm.errors import EncoderError, OutputError
from fapm.memory.geometry import Grid, cells_by_patch
from fapm.memory.patches import patch_vectors

# Features that take more bytes than this as float32 go to a file, as float16.
MEMORY_LIMIT = 800_000_000
# Number of pictures returned at a time, and the largest size of their features read from a file.
_PICTURES = 512
_BYTES = 2**28
# Bytes that must stay free on the disk of the file.
_SPARE = 2**28


class _Layer(Protocol):
    def write(self, start: int, features: Tensor) -> None: ...
    def vectors(self, patch: int, count: int) -> Tensor: ...
    def pictures(self, start: int, stop: int) -> Tensor: ...


class Spool:
    """Features of all training pictures, written picture by picture and read patch by patch.

    Up to :data:`MEMORY_LIMIT` they stay in memory unchanged. More go to a temporary file as
    float16, in the folder ``TMPDIR`` or the system's own. The file has no name (on Windows it is
    deleted when closed), so that nothing is left behind, however the process ends.

    Parameters
    ----------
    capacity
        largest number of pictures.
    grid
        ``G``: patches along an edge, or rows and columns of them.
    inside
        per layer bool ``[H * W]``, the cells that are inspected; default: all. The features of
        other cells may be dropped.

    Attributes
    ----------
    count
        number of pictures so far.
    shapes
        ``C, H, W`` of each layer, set by the first picture.
    """

    def __init__(
        self,
        capacity: int,
        grid: Grid,
        inside: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> None:
        self.capacity = capacity
        self.grid = grid
        self._inside = inside
        self.count = 0
        self.shapes: list[tuple[int, int, int]] = []
        self._layers: list[_Layer] = []
        self._file: RawIOBase | None = None
        self._at_once = _PICTURES

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._layers = []
        if self._file is not None:
            self._file.close()

    @property
    def at_once(self) -> int:
        """Largest number of pictures to ask :meth:`pictures` for."""
        return self._at_once

    def append(self, features: Sequence[Tensor]) -> None:
        """Add the features of ``B`` pictures, per layer float32 ``[B, C, H, W]``.

        Raises
        ------
        OutputError
            The disk has no room for the file, or the file cannot be written.
        EncoderError
            Features to be written to a file lie beyond the range of float16.
        """
        if not self._layers:
            self._open(features)
        for layer, f in zip(self._layers, features, strict=True):
            layer.write(self.count, f)
        self.count += len(features[0])

    def patch_vectors(self, layer: int, patch: int) -> Tensor:
        """Vectors of one patch in all pictures, float32 ``[N * V, C]``, picture after picture."""
        return self._layers[layer].vectors(patch, self.count)

    def pictures(self, layer: int, start: int, stop: int) -> Tensor:
        """One layer's features of some pictures, float32 ``[stop - start, C, H, W]``."""
        return self._layers[layer].pictures(start, stop)

    def select(self, rows: Sequence[int]) -> Spool | Rows:
        """Select some of the pictures, as if there were no others; ``rows`` must ascend."""
        return self if len(rows) == self.count else Rows(self, rows)

    def _open(self, features: Sequence[Tensor]) -> None:
        shapes = [(int(f.shape[1]), int(f.shape[2]), int(f.shape[3])) for f in features]
        self.shapes = shapes
        cells = [
            cells_by_patch(height, width, self.grid, inside)
            for (_, height, width), inside in zip(
                shapes, self._inside or [None] * len(shapes), strict=True
            )
        ]
        if not file_bytes(self.capacity, shapes):
            self._layers = [
                _InMemory(self.capacity, f, own) for f, own in zip(features, cells, strict=True)
            ]
            return
        self._file = open_file(self.capacity, shapes)
        self._at_once = min(_PICTURES, max(1, _BYTES // (4 * sum(map(math.prod, shapes)))))
        start = 0
        for shape, own in zip(shapes, cells, strict=True):
            self._layers.append(_InFile(self._file, start, self.capacity, shape, own))
            start += 2 * self.capacity * math.prod(shape)


class Rows:
    """Some rows of a :class:`Spool`: only these pictures are counted and read."""

    def __init__(self, spool: Spool, rows: Sequence[int]) -> None:
        self._spool, self._rows = spool, torch.tensor(rows)
        self.count, self.shapes, self.grid = len(rows), spool.shapes, spool.grid

    @property
    def at_once(self) -> int:
        """Largest number of pictures to ask :meth:`pictures` for."""
        return max(1, self._spool.at_once * self.count // self._spool.count)

    def patch_vectors(self, layer: int, patch: int) -> Tensor:
        """Do as :meth:`Spool.patch_vectors` for these rows."""
        vectors = self._spool.patch_vectors(layer, patch)  # [N V, C]
        by_picture = vectors.view(self._spool.count, -1, vectors.shape[-1])
        return by_picture[self._rows].flatten(0, 1)

    def pictures(self, layer: int, start: int, stop: int) -> Tensor:
        """Do as :meth:`Spool.pictures` for these rows."""
        rows = self._rows[start:stop]
        first = int(rows[0])
        return self._spool.pictures(layer, first, int(rows[-1]) + 1)[rows - first]


def file_bytes(pictures: int, shapes: Sequence[tuple[int, int, int]]) -> int:
    """Size of the file for ``pictures`` with layers ``(C, H, W)``; 0 if memory is enough."""
    values = pictures * sum(map(math.prod, shapes))
    return 2 * values if 4 * values > MEMORY_LIMIT else 0


def folder() -> Path:
    """Folder of the file: ``TMPDIR``, or else the system's folder for temporary files.

    Python alone would silently use another folder if ``TMPDIR`` cannot be used.

    Raises
    ------
    OutputError
        The system has no folder for temporary files.
    """
    try:
        return Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    except OSError as error:
        raise OutputError(f"no folder for temporary files; set TMPDIR to one: {error}") from error


def open_file(pictures: int, shapes: Sequence[tuple[int, int, int]]) -> RawIOBase:
    """Open a file without a name that has room for :func:`file_bytes`.

    Raises
    ------
    OutputError
        The disk has no room, or no file can be written.
    """
    where, needed = folder(), file_bytes(pictures, shapes)
    try:
        free = shutil.disk_usage(where).free
        if needed + _SPARE > free:
            raise OutputError(
                f"{where}: the features of {pictures:,} pictures need {_gigabytes(needed)} of room "
                f"here, and {_gigabytes(free)} are free; set TMPDIR to a folder with more"
            )
        # Read and written rather than mapped: the pages of a mapping count as the process's memory.
        return cast(RawIOBase, tempfile.TemporaryFile(buffering=0, dir=where))
    except OSError as error:
        raise _unwritable(where, error) from error


class _InMemory:
    """Unchanged features of one layer, float32 ``[N, C, H, W]``."""

    def __init__(self, capacity: int, like: Tensor, cells: list[NDArray[np.int64]]) -> None:
        self._store = torch.empty(
            (capacity, *like.shape[1:]), dtype=like.dtype, memory_format=torch.channels_last
        )
        self._cells = cells

    def write(self, start: int, features: Tensor) -> None:
        self._store[start : start + len(features)] = features

    def vectors(self, patch: int, count: int) -> Tensor:
        return patch_vectors(self._store[:count], self._cells[patch])

    def pictures(self, start: int, stop: int) -> Tensor:
        return self._store[start:stop]


class _InFile:
    """Features of one layer in a file, as float16; the vectors of a patch are contiguous."""

    def __init__(
        self,
        file: RawIOBase,
        start: int,
        capacity: int,
        shape: tuple[int, int, int],
        cells: list[NDArray[np.int64]],
    ) -> None:
        self._file = file
        self._channels, self._height, self._width = shape
        self._cells = cells
        self._starts = []  # of each patch, in bytes
        for own in cells:
            self._starts.append(start)
            start += capacity * self._row(own)
        # This buffer is kept: otherwise each patch would leave a gap of this size in the heap.
        largest = max(map(len, self._cells))
        self._read_into = np.empty(capacity * largest * self._channels, np.float16)

    def write(self, start: int, features: Tensor) -> None:
        half = features.half()
        if bool((half.isinf() & features.isfinite()).any()):
            raise EncoderError(
                f"features of up to {float(features.abs().max()):.3g} do not fit into float16, as "
                "which those of so many pictures are kept; fit on fewer"
            )
        for at, cells in zip(self._starts, self._cells, strict=True):
            if not len(cells):
                continue
            values = patch_vectors(half, cells).contiguous().numpy()
            try:
                self._file.seek(at + start * self._row(cells))
                _write_all(self._file, values)
            except OSError as error:
                raise _unwritable(folder(), error) from error

    def vectors(self, patch: int, count: int) -> Tensor:
        return self._read(patch, 0, count).flatten(0, 1).float()

    def pictures(self, start: int, stop: int) -> Tensor:
        found = torch.zeros(stop - start, self._height * self._width, self._channels)
        for patch, cells in enumerate(self._cells):
            if len(cells):
                found[:, cells] = self._read(patch, start, stop).float()
        return found.view(-1, self._height, self._width, self._channels).permute(0, 3, 1, 2)

    def _read(self, patch: int, start: int, stop: int) -> Tensor:
        """Read a patch of some pictures, float16 ``[n, V, C]``; valid until the next call."""
        cells = self._cells[patch]
        count = (stop - start) * len(cells) * self._channels
        values = self._read_into[:count].reshape(stop - start, len(cells), self._channels)
        view = _bytes(values)
        self._file.seek(self._starts[patch] + start * self._row(cells))
        while view:
            taken = self._file.readinto(view)
            if not taken:
                raise OutputError(f"{folder()}: the temporary file of the features was cut short")
            view = view[taken:]
        return torch.from_numpy(values)

    def _row(self, cells: NDArray[np.int64]) -> int:
        """Size of one picture's patch in bytes."""
        return 2 * len(cells) * self._channels


def _write_all(file: RawIOBase, values: NDArray[np.float16]) -> None:
    view = _bytes(values)
    while view:
        view = view[file.write(view) :]


def _bytes(values: NDArray[np.float16]) -> memoryview:
    """The bytes of ``values``; none for a patch without an inspected cell."""
    return values.reshape(-1).view(np.uint8).data


def _unwritable(where: Path, error: OSError) -> OutputError:
    reason = error.strerror or error
    return OutputError(
        f"{where}: cannot keep the pictures' features in a file here: {reason}; set TMPDIR to "
        "another folder"
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
