"""A decoded picture's samples as RGB uint8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fapm.errors import ImageError

_HIDDEN = 16  # of 255: below this a picture has too few grey levels to show anything


@dataclass(frozen=True)
class Rgb:
    """RGB samples, and what became of the others.

    Attributes
    ----------
    pixels
        ``uint8 [H, W, 3]``, 0..255, contiguous and writable.
    alpha_ignored
        the picture has an alpha channel that would have hidden it, see :func:`over_black`.
    brightest
        the largest value of a picture of 16 bits per sample, 0..255; None for any other.
    """

    pixels: NDArray[np.uint8]
    alpha_ignored: bool = False
    brightest: int | None = None


def to_rgb(picture: Image.Image, bits: int = 8) -> Rgb:
    """Convert a decoded picture to RGB.

    ``bits`` are those of a sample in the file. Of more than 8 the upper 8 are kept, whatever the
    content: the same grey is the same grey in every picture.

    Raises
    ------
    ImageError
        A sample type without a fixed range: float, signed or 32 bit.
    """
    deep_grey = picture.mode.startswith("I;16") or (picture.mode == "I" and bits == 16)
    if picture.mode in ("I", "F") and not deep_grey:
        kind = "32-bit float" if picture.mode == "F" else "signed or 32-bit"
        raise ImageError(
            f"{kind} samples have no fixed range; save the picture with 8 or 16 bits per channel"
        )
    if deep_grey or picture.mode in ("1", "L"):
        samples = np.asarray(picture if deep_grey else picture.convert("L"))
        grey = (samples >> max(bits - 8, 0)).astype(np.uint8)
        if isinstance(clear := picture.info.get("transparency"), int):
            grey[samples == clear] = 0
        found = Rgb(grey_to_rgb(grey))
    elif picture.has_transparency_data:
        # Pillow turns premultiplied grey into nothing but plain grey.
        straight = picture.convert("LA") if picture.mode == "La" else picture
        found = over_black(np.asarray(straight.convert("RGBA")))
    else:
        found = Rgb(np.array(picture.convert("RGB")))
    if bits != 16:
        return found
    return Rgb(found.pixels, found.alpha_ignored, int(found.pixels.max()))


def over_black(rgba: NDArray[np.uint8]) -> Rgb:
    """A transparent picture, ``uint8 [H, W, 4]``, laid over black.

    Where alpha is nowhere above a sixteenth the picture is taken without it. Nothing would be left
    to see, and it was not meant so: grabbers leave 0 or little more in a byte that they do not use.
    """
    alpha = rgba[:, :, 3]
    if alpha.max() < _HIDDEN:
        return Rgb(np.array(rgba[:, :, :3], order="C"), alpha_ignored=True)
    if alpha.min() == 255:
        return Rgb(np.array(rgba[:, :, :3], order="C"))
    product = rgba[:, :, :3].astype(np.uint16) * alpha[:, :, None]  # at most 255 * 255: fits
    return Rgb(((product + 127) // 255).astype(np.uint8))


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``uint8 [H, W]`` to ``[H, W, 3]``."""
    return np.repeat(grey[:, :, None], 3, axis=2)
