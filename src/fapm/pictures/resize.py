"""One resize for pictures, masks and maps, and the way back."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """A mask of another size, bool ``[height, width]``, nearest neighbour."""
    # EXACT samples at pixel centres, like the picture's own resize; plain NEAREST is half a pixel
    # off.
    resized = cv2.resize(
        mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return np.asarray(resized, dtype=np.bool_)


Interpolation = Literal["bilinear", "bicubic"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def whole_factor(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    """By what pictures are averaged before they are resized: 1, 2, 4, 8 ...

    Both edges of ``size``, rounded up, keep at least those of ``wanted``; so that averaging by a
    part of the factor leaves the rest of it.
    """
    factor = 1
    while factor < max(size) and all(
        -(-have // (2 * factor)) >= want for have, want in zip(size, wanted, strict=True)
    ):
        factor *= 2
    return factor


def resize_image(
    image: NDArray[np.uint8],
    height: int,
    width: int,
    interpolation: Interpolation = "bicubic",
    extent: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """``uint8 [H, W, 3]`` to a new ``uint8 [height, width, 3]``, antialiased when shrinking.

    Pictures far larger than needed are first averaged by :func:`whole_factor`. It takes half the
    time, and JPEG files that are decoded at a quarter or an eighth come averaged in the same way.

    Parameters
    ----------
    extent
        height and width of what is shown, in pixels of ``image``; default: all of them. Of a
        picture that was averaged the last row and column may show less than a pixel.
    """
    picture = Image.fromarray(image)
    rows, columns = extent or image.shape[:2]
    factor = whole_factor(image.shape[:2], (height, width))
    if factor > 1:
        picture = picture.reduce(factor)
    shown = (0.0, 0.0, columns / factor, rows / factor)
    return np.array(picture.resize((width, height), _FILTERS[interpolation], box=shown))


def rotate(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Turn a picture counter-clockwise about its centre, within its own frame.

    Where it turns out of the picture the border is repeated.

    Returns
    -------
    ``uint8 [H, W, 3]`` as ``image``.
    """
    height, width = image.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, degrees, 1.0)
    turned = cv2.warpAffine(
        image, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(turned, np.uint8)


def resize_map(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A map of another size, float32 ``[height, width]``, bilinear."""
    resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def scale_window(window: slice, resize: int, edge: int) -> slice:
    """The pixels of an edge of ``edge`` pixels whose centres fall in ``window`` of ``resize``."""

    def first_centre(position: int) -> int:
        return -((resize - 2 * position * edge) // (2 * resize))  # ceil(position * scale - 0.5)

    return slice(first_centre(window.start), first_centre(window.stop))
