"""Masks of defects: pictures that say where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fapm.errors import MaskError
from fapm.pictures.codec import read_levels
from fapm.pictures.resize import resize_mask

# A mask with more grey levels than this was smoothed, or compressed with loss.
_FEW_LEVELS = 16
# How far the shape of a mask may be off, of its edge, and in pixels where it was rounded.
_OFF = 0.01
_ROUNDED = 0.5


@dataclass(frozen=True)
class Mask:
    """The place of a picture's defect.

    Attributes
    ----------
    inside
        bool ``[H, W]``, as the picture.
    graded
        it has more than black and a few levels, and was cut at half of its range.
    """

    inside: NDArray[np.bool_]
    graded: bool


def read_masks(paths: Sequence[Path], height: int, width: int) -> Mask:
    """The defect of a picture of this size, from one mask or several: what is inside any of them.

    In a mask anything counts that is not black. In a JPEG, or where there are more than 16 grey
    levels, black is not exact and what is above half of the range counts. A mask of another size
    is resized (nearest neighbour).

    Raises
    ------
    ImageError
        As :func:`fapm.pictures.codec.read_image`, except that every sample type is accepted.
    MaskError
        A mask is of another shape than its picture by more than 1 %, or none of them has anything
        inside.
    """
    inside = np.zeros((height, width), np.bool_)
    graded = drawn = False
    for path in paths:
        mask = _read(path)
        _refuse_other_shape(path, mask.inside, height, width)
        inside |= resize_mask(mask.inside, height, width)
        graded |= mask.graded
        drawn |= bool(mask.inside.any())
    if not drawn:
        raise MaskError(
            f"{paths[0]}: the mask of a defect is black everywhere; draw the defect in white, or "
            "delete the mask"
        )
    return Mask(inside, graded)


def looks_like_mask(path: Path) -> bool:
    """Whether a picture has so few levels that it can only be a mask.

    Raises
    ------
    ImageError
        As :func:`fapm.pictures.codec.read_image`.
    """
    levels, _ = read_levels(path)
    return _has_few(levels)


def _read(path: Path) -> Mask:
    levels, lossy = read_levels(path)
    # A whole number of 16 bits counts objects; it is no grey.
    graded = lossy or (levels.dtype in (np.uint8, np.float32) and not _has_few(levels))
    return Mask(levels > levels.max() / 2 if graded else levels != 0, graded)


def _has_few(levels: NDArray[np.generic]) -> bool:
    return len(np.unique(levels)) <= _FEW_LEVELS


def _refuse_other_shape(path: Path, mask: NDArray[np.bool_], height: int, width: int) -> None:
    rows, columns = mask.shape
    # Whichever edge is longer than it should be, measured in the mask's own pixels.
    for edge, other in ((rows, columns * height / width), (columns, rows * width / height)):
        if abs(edge - other) > max(_ROUNDED, _OFF * edge):
            raise MaskError(
                f"{path}: the mask has {columns} x {rows} pixels and its picture {width} x "
                f"{height}: it is of another shape (was the picture turned?); draw it anew"
            )
