"""The memory banks of a bundle: how they are written and, beside it, how they are read.

The banks themselves know nothing of bundles (:mod:`fapm.memory`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.encoder.spec import FrozenEncoder
from fapm.frames.layout import Layout
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import cells_by_patch, patch_grid, patch_of_cell
from fapm.plain import Described, Tensors, require

_TENSORS = ("keys", "offsets", "pictures", "cells", "radii")


def describe_bank(bank: MemoryBank, number: int, pictures: int) -> Described:
    """Bank ``number`` of a detector with so many pictures: plain JSON, and tensors by name."""
    tensors = {f"{number}.{name}": np.ascontiguousarray(getattr(bank, name)) for name in _TENSORS}
    return {
        "height": bank.height,
        "width": bank.width,
        "channels": bank.keys.shape[1],
        "grid": bank.grid,
        "distance_unit": bank.unit,
        "keys": len(bank.keys),
        "vectors": bank.inspected * pictures,
    }, tensors


def restore_banks(
    described: Sequence[Mapping[str, Any]],
    tensors: Tensors,
    config: Config,
    layout: Layout,
    encoder: FrozenEncoder,
    inside: Sequence[NDArray[np.bool_] | None],
    pictures: int,
) -> tuple[MemoryBank, ...]:
    """The banks that :func:`describe_bank` described, one after the other.

    Parameters
    ----------
    inside
        per bank, its cells that are inspected.
    pictures
        how many pictures the detector has.

    Raises
    ------
    BundleError
        A bank contradicts itself, the encoder or the number of pictures.
    """
    require(len(described) == len(inside), "its memory does not fit its encoder")
    banks = tuple(
        _restore_bank(number, layer, tensors, config, layout, cells)
        for number, (layer, cells) in enumerate(zip(described, inside, strict=True))
    )
    for bank in banks:
        require(int(bank.pictures.max()) < pictures, "its memory has keys of no picture")
    require(
        [(b.keys.shape[1], b.height, b.width) for b in banks]
        == list(_feature_maps(encoder, config, layout)),
        "its memory does not fit its encoder",
    )
    return banks


def _restore_bank(
    number: int,
    described: Mapping[str, Any],
    tensors: Tensors,
    config: Config,
    layout: Layout,
    inside: NDArray[np.bool_] | None,
) -> MemoryBank:
    grid = layout.grid(config.grid)
    rows, columns = layout.side_by_side(layout.tile_shape)
    keys, offsets, pictures, cells, radii = (tensors[f"{number}.{name}"] for name in _TENSORS)
    height, width, count = (int(described[name]) for name in ("height", "width", "keys"))
    # Before anything of that size is made: no encoder has more cells than pixels.
    require(
        0 < height <= rows and 0 < width <= columns,
        f"the memory of layer {number} has a map larger than the frame",
    )
    rows, columns = patch_grid(height, width, grid)
    patches = rows * columns
    require(inside is None or len(inside) == height * width, "its memory does not fit its encoder")
    searched = [len(cells) > 0 for cells in cells_by_patch(height, width, grid, inside)]
    require(
        keys.dtype == radii.dtype == np.float32
        and offsets.dtype == pictures.dtype == cells.dtype == np.int64
        and keys.shape == (count, described["channels"])
        and pictures.shape == cells.shape == (count,)
        and offsets.shape == (patches + 1,)
        and radii.shape == (patches,)
        and described["grid"] == (grid if isinstance(grid, int) else list(grid))
        and 0 < described["distance_unit"] < math.inf
        and bool(np.isfinite(keys).all()),
        f"the memory of layer {number} contradicts itself",
    )
    require(
        int(offsets[0]) == 0
        and int(offsets[-1]) == count
        and bool((np.diff(offsets) >= searched).all())
        and int(pictures.min()) >= 0
        and 0 <= int(cells.min()) <= int(cells.max()) < height * width,
        f"the memory of layer {number} contradicts itself",
    )
    owners = np.repeat(np.arange(patches), np.diff(offsets))
    require(
        config.rotations > 1  # then cells are where the key lies in the picture as it is
        or np.array_equal(patch_of_cell(height, width, grid).ravel()[cells], owners),
        f"the memory of layer {number} has keys in patches that are not theirs",
    )
    unit = float(described["distance_unit"])
    return MemoryBank(keys, offsets, pictures, cells, radii, unit, height, width, grid, inside)


def _feature_maps(
    encoder: FrozenEncoder, config: Config, layout: Layout
) -> Iterator[tuple[int, int, int]]:
    """Per bank ``C, H, W`` of the features it should hold."""
    shapes = [(c, *layout.side_by_side((h, w))) for c, h, w in encoder.shapes]
    if config.layer_wise:
        yield from shapes
    else:
        height, width = max((s[1:] for s in shapes), key=lambda size: size[0] * size[1])
        yield sum(s[0] for s in shapes), height, width
