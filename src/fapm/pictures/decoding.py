"""Bytes to pixels, or a clear error. Pillow is the one decoder.

Pillow is believed where the tests compare it with other decoders, see
``tests/pictures/test_decoders.py``; what it reads wrongly is refused by name
(:mod:`fapm.pictures.refusals`), and what it refuses although the pixels are whole is mended
(:mod:`fapm.pictures.mending`).
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO, TypeVar

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from fapm.errors import ImageError
from fapm.pictures.mending import mended
from fapm.pictures.quiet import pillow_warnings_ignored
from fapm.pictures.refusals import kind_of, refuse_misread, refuse_unopenable
from fapm.pictures.resize import whole_factor

MIN_EDGE = 2

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_WIDTH, _HEIGHT, _BITS = 256, 257, 258  # TIFF tags
_ORIENTATION = 274  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_LYING = (5, 6, 7, 8)  # rows and columns are exchanged
_PNG_DEPTH = 24  # where in the file it is

_pillow_limit_lock = threading.Lock()
_T = TypeVar("_T")


def decode(
    file: BinaryIO,
    max_pixels: int,
    convert: Callable[[Image.Image, int], _T],
    edge: int | None = None,
) -> tuple[_T, tuple[int, int]]:
    """Decode a file: the result of ``convert``, and height and width of the whole picture.

    Parameters
    ----------
    convert
        is given the decoded picture, upright, and the bits of its samples in the file.
    edge
        a JPEG may come at a half or less, as long as both edges keep as many pixels.

    Raises
    ------
    ImageError
        As :func:`fapm.pictures.codec.read_image`; the message does not name the file.
    """

    def decoded(file: BinaryIO) -> tuple[_T, tuple[int, int]]:
        with _opened(file) as picture:
            check_size(picture.size, max_pixels)
            refuse_misread(picture)
            bits = _sample_bits(picture, file)
            size: tuple[int, int] | None = None
            factor = 1
            if edge is not None and picture.format == "JPEG":
                size = _upright_size(picture)
                factor = whole_factor(picture.size, (edge, edge))
            if factor > 2:
                picture.draft(None, (edge, edge))
            beyond_pillow_limit(picture.load)
            upright = _upright(picture)
            size = size or (upright.height, upright.width)
            if factor == 2 and picture.mode in ("RGB", "L"):
                # Decoded at a half it would take as long, and be rounded in another way than an
                # array of the same pixels is by :func:`fapm.pictures.resize.resize_image`.
                upright = upright.reduce(2)
            return convert(upright, bits), size

    with pillow_warnings_ignored():
        return _mended_if_need_be(decoded, file)


def decode_opened(
    picture: Image.Image, max_pixels: int, convert: Callable[[Image.Image, int], _T]
) -> _T:
    """Apply ``convert`` to a picture that Pillow has opened; the picture stays as it is.

    Raises
    ------
    ImageError
        As :func:`decode`.
    """
    try:
        with pillow_warnings_ignored():
            check_size(picture.size, max_pixels)
            refuse_misread(picture)
            bits = _sample_bits(picture, None)
            beyond_pillow_limit(picture.load)
            return convert(_upright(picture), bits)
    except ImageError:
        raise
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise _explained(error) from error


def size_of(file: BinaryIO) -> tuple[int, int]:
    """Height and width of the picture in a file, as :func:`decode` would say.

    Raises
    ------
    ImageError
        It is no picture.
    """

    def size(file: BinaryIO) -> tuple[int, int]:
        with _opened(file) as picture:
            return _upright_size(picture)

    with pillow_warnings_ignored():
        return _mended_if_need_be(size, file)


def check_size(size: tuple[int, int], max_pixels: float) -> None:
    """Refuse a picture of this width and height that is too large or too small.

    Raises
    ------
    ImageError
        With the limit and how to raise it.
    """
    width, height = size
    pixels = width * height
    if pixels > max_pixels:
        raise ImageError(
            f"{width} x {height} is {pixels:,} pixels, the limit is {max_pixels:,}; if the picture "
            f"is genuine raise it with --max-pixels {pixels} (Python: max_pixels={pixels})"
        )
    if min(width, height) < MIN_EDGE:
        raise ImageError(
            f"{width} x {height} is too small; at least {MIN_EDGE} x {MIN_EDGE} is needed"
        )


def beyond_pillow_limit(action: Callable[[], _T]) -> _T:
    """Run ``action``; if Pillow's own limit on pixels stops it, once more without that limit.

    Ours is an argument, Pillow's is one number for the whole process. It is lifted for the few
    pictures that need it, one at a time, so that the old number always comes back.
    """
    try:
        return action()
    except Image.DecompressionBombError:
        with _pillow_limit_lock:
            limit = Image.MAX_IMAGE_PIXELS
            # Not None: Pillow in another thread may just have seen a number and multiply it.
            Image.MAX_IMAGE_PIXELS = 2**62
            try:
                return action()
            finally:
                Image.MAX_IMAGE_PIXELS = limit


def _opened(file: BinaryIO) -> Image.Image:
    def opened() -> Image.Image:
        # A file, not its path: Pillow would map one that is not compressed into memory, where an
        # upright size and the orientation of the bytes can differ.
        file.seek(0)
        refuse_unopenable(file)
        file.seek(0)
        return Image.open(file, formats=_FORMATS)

    return beyond_pillow_limit(opened)


def _mended_if_need_be(action: Callable[[BinaryIO], _T], file: BinaryIO) -> _T:
    try:
        return action(file)
    except ImageError:
        raise
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        if (again := _mended(file, error)) is None:
            raise _explained(error, file) from error
    try:
        return action(again)
    except ImageError:
        raise
    except Exception as error:
        raise _explained(error, again) from error


def _mended(file: BinaryIO, error: Exception) -> BinaryIO | None:
    if isinstance(error, OSError) and error.errno is not None:
        return None  # the system's, not Pillow's
    try:
        file.seek(0)
        data = mended(file.read())
    except Exception:  # it is damaged in earnest
        return None
    return None if data is None else BytesIO(data)


def _explained(error: Exception, file: BinaryIO | None = None) -> ImageError:
    if isinstance(error, OSError) and error.errno is not None:
        return ImageError(f"cannot be read: {error.strerror}")
    reason = " ".join(str(error).split()) or type(error).__name__
    unknown = isinstance(error, UnidentifiedImageError)
    # Some are opened, though there is nothing that unpacks them.
    if file is not None and (kind := kind_of(file, unknown or "raw mode" in reason)):
        return ImageError(kind)
    if unknown:
        return ImageError(
            "not a JPEG, PNG, BMP, TIFF or WebP picture that can be read; "
            "remove it or save it again as PNG"
        )
    return ImageError(f"damaged or cut off ({reason}); copy or save the picture again")


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    width, height = picture.size
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        # Before it is loaded some versions of Pillow say the upright size, some the other.
        width, height = picture.tag_v2[_WIDTH], picture.tag_v2[_HEIGHT]
    return (width, height) if _orientation(picture) in _LYING else (height, width)


def _upright(picture: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(picture))  # of a TIFF Pillow has turned it already
    return picture if turn is None else picture.transpose(turn)


def _orientation(picture: Image.Image) -> int:
    try:
        orientation = picture.getexif().get(_ORIENTATION)
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return 1  # damaged EXIF costs no picture
    return orientation if isinstance(orientation, int) else 1


def _sample_bits(picture: Image.Image, file: BinaryIO | None) -> int:
    """Bits of a sample in the file; that of a PNG that was opened elsewhere only if it is grey."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        # Pillow holds signed samples of 16 bits with 32, as those of 32.
        return 32 if picture.mode == "I" else int(max(picture.tag_v2.get(_BITS, (1,))))
    if picture.format == "PNG" and file is not None:
        position = file.tell()
        file.seek(_PNG_DEPTH)
        depth = file.read(1)[0]
        file.seek(position)
        clear = picture.info.get("transparency")
        if picture.mode in ("1", "L") and depth < 8 and isinstance(clear, int):
            # Pillow spreads the samples over 8 bits, but not the one that is transparent.
            picture.info["transparency"] = min(clear * 255 // (2**depth - 1), 255)
        return depth
    is_deep = picture.mode.startswith("I;16") or (picture.format == "PNG" and picture.mode == "I")
    return 16 if is_deep else 8
