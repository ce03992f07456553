"""One resize for pictures, masks and maps, and the way back."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def prepare_mask(mask: NDArray[np.bool_], resize: int, crop: int | None) -> NDArray[np.bool_]:
    """:func:`prepare` for a mask: ``bool [H, W]`` to ``bool [S, S]``, nearest neighbour."""
    window = crop_window(resize, crop)
    return np.ascontiguousarray(resize_mask(mask, resize, resize)[window, window])


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
    image: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation = "bicubic"
) -> NDArray[np.uint8]:
    """``uint8 [H, W, 3]`` to a new ``uint8 [height, width, 3]``, antialiased when shrinking.

    Pictures far larger than needed are first averaged by :func:`whole_factor`. It takes half the
    time, and JPEG files that are decoded at a quarter or an eighth come averaged in the same way.
    """
    picture = Image.fromarray(image)
    factor = whole_factor(image.shape[:2], (height, width))
    if factor > 1:
        picture = picture.reduce(factor)
    return np.array(picture.resize((width, height), _FILTERS[interpolation]))


def prepare(
    image: NDArray[np.uint8], resize: int, crop: int | None, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """The square frame the encoder sees: the whole picture squashed, then its centre.

    `interpolation` is the encoder's own, see :class:`fapm.encoder.network.EncoderSpec`.

    Returns
    -------
    ``uint8 [S, S, 3]`` with S = `crop`, or `resize` without a crop; contiguous.
    """
    window = crop_window(resize, crop)
    resized = resize_image(image, resize, resize, interpolation)
    return np.ascontiguousarray(resized[window, window])


def rotate(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Turn a picture counter-clockwise about its centre, within its own frame.

    Where it turns out of the picture the border is repeated.

    Returns
    -------
    ``uint8 [H, W, 3]`` as `image`.
    """
    height, width = image.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, degrees, 1.0)
    turned = cv2.warpAffine(
        image, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(turned, np.uint8)


def restore_map(
    anomaly_map: NDArray[np.float32], height: int, width: int, resize: int, crop: int | None
) -> NDArray[np.float32]:
    """The way back from :func:`prepare`: a map of the frame in the picture's own geometry.

    Bilinear. Outside a centre crop nothing was seen and the map is 0.

    Returns
    -------
    ``float32 [height, width]`` for an `anomaly_map` of ``float32 [S, S]``.
    """
    window = crop_window(resize, crop)
    # Bordered by its own edge, not by zeros: interpolation would fade the map along the crop.
    border = (window.start, resize - window.stop)
    whole = np.pad(anomaly_map, (border, border), mode="edge")
    resized = cv2.resize(whole, (width, height), interpolation=cv2.INTER_LINEAR)
    restored = np.zeros((height, width), np.float32)
    seen = _scale_window(window, resize, height), _scale_window(window, resize, width)
    restored[seen] = resized[seen]
    return restored


def crop_window(resize: int, crop: int | None) -> slice:
    """Where the centre crop begins and ends along one edge of the resized picture."""
    size = resize if crop is None else crop
    start = (resize - size) // 2
    return slice(start, start + size)


def _scale_window(window: slice, resize: int, edge: int) -> slice:
    """The pixels of an edge of `edge` pixels whose centres fall in `window` of `resize`."""

    def first_centre(position: int) -> int:
        return -((resize - 2 * position * edge) // (2 * resize))  # ceil(position * scale - 0.5)

    return slice(first_centre(window.start), first_centre(window.stop))
