"""A frame's tiles through an encoder, one by one.

Not as a batch: its activations would leave the CPU's cache, and its memory would grow with the
frame (measured, ``docs/decisions.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode_tiles(
    encode: Callable[[NDArray[np.uint8]], list[NDArray[Any]]],
    tiles: Sequence[NDArray[np.uint8]],
    inspected: NDArray[np.bool_],
) -> list[NDArray[Any]]:
    """Per layer ``[T, C, H, W]`` of ``T`` tiles; zeros for those of which nothing is inspected.

    Parameters
    ----------
    encode
        gives per layer ``[1, C, H, W]`` of a tile RGB uint8 ``[h, w, 3]``.
    inspected
        bool ``[T]``.
    """
    found = [
        encode(tile) if wanted else None for tile, wanted in zip(tiles, inspected, strict=True)
    ]
    blank = [np.zeros_like(layer) for layer in next(filter(None, found))]
    return [np.concatenate(layers) for layers in zip(*(f or blank for f in found), strict=True)]
