"""Heights and widths of pictures: which is usual, and which have the same shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fapm.errors import ConfigError

# Two aspect ratios are the same if they differ by less than this.
SHAPE = 0.01
# A picture is resized to a frame of another aspect ratio if they differ by less than this: lengths
# of strips vary, and padding or cropping instead made nothing better (docs/decisions.md).
_STRETCH = 0.1


def usual_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The commonest height and width of those near most pictures; None without pictures.

    Raises
    ------
    ConfigError
        Half of the pictures or more are of quite another shape.
    """
    if not sizes:
        return None
    shapes = Counter(sizes)
    ratios = np.array([height / width for height, width in shapes])
    counts = np.array([*shapes.values()])
    near = [int(counts[np.abs(ratio / ratios - 1) < _STRETCH].sum()) for ratio in ratios]
    # The middle one of those that are as common: others are then least off.
    alike = max(near)
    best = [i for i, count in enumerate(near) if count == alike]
    best = [i for i in best if counts[i] == counts[best].max()]
    middle = float(np.median(ratios[best]))
    usual = [*shapes][min(best, key=lambda i: abs(ratios[i] - middle))]
    if 2 * alike <= len(sizes):
        raise ConfigError(
            f"tile, keep_aspect: the pictures are of many shapes ({alike} of {len(sizes)} like the "
            f"commonest, {pixel_size(usual)} pixels), and frames have one; leave it out"
        )
    return usual


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have the same aspect ratio, to 1 %."""
    return difference(one, other) < SHAPE


def near_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a picture of the size ``other`` may be resized to the shape of ``one``: to 10 %."""
    return difference(one, other) < _STRETCH


def difference(one: tuple[int, int], other: tuple[int, int]) -> float:
    """By what share two sizes differ in aspect ratio."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1)


def pixel_size(size: tuple[int, int]) -> str:
    """Height and width as people write them: ``640 x 480``."""
    return f"{size[1]} x {size[0]}"
