"""Bytes to RGB uint8, or a clear error.

Pillow is the one decoder and the one resize of pictures: two different resizes cost points of
AUROC. Its resize is antialiased, the encoders were trained with it, and OpenVINO and torch have it
too. Masks and maps, which are not pictures, are resized by OpenCV.
"""

from __future__ import annotations

import stat
import threading
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from fapm.errors import ImageError

MAX_PIXELS = 200_000_000
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

Interpolation = Literal["bilinear", "bicubic"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_MIN_EDGE = 2
_BITS_PER_SAMPLE = 258  # TIFF tag
_ORIENTATION = 274  # EXIF tag; from _LYING on, rows and columns are exchanged
_LYING = 5

_pillow_limit_lock = threading.Lock()
_T = TypeVar("_T")


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The picture in a JPEG, PNG, BMP, TIFF or WebP file, recognised by content, not by name.

    - EXIF orientation is applied.
    - 16-bit samples keep their high byte (12-bit ones their upper 8 bits), whatever the content:
      the same grey is the same grey in every picture.
    - Transparent pictures are laid over black.
    - CMYK is converted without a colour profile.
    - Of several pages or frames the first is taken.

    Returns
    -------
    ``uint8 [H, W, 3]``, RGB, 0..255, contiguous and writable.

    Raises
    ------
    ImageError
        The file is missing, empty, damaged, no picture, smaller than 2 x 2, of a sample type
        without a fixed range (float, signed, 32 bit) or has more than `max_pixels` pixels. The
        size is judged from the header, before anything is decoded.
    """
    return _decode(Path(path), max_pixels, _to_rgb)[0]


def read_reduced(
    path: str | Path, edge: int, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """:func:`read_image` for what is going to be resized to `edge` pixels or less.

    A JPEG is decoded at a half, a quarter or an eighth, as long as both of its edges keep `edge`
    pixels: several times as fast, with no change in accuracy (measured, `docs/decisions.md`).

    Returns
    -------
    ``uint8 [h, w, 3]``, and height and width of the whole picture.

    Raises
    ------
    ImageError
        As :func:`read_image`.
    """
    return _decode(Path(path), max_pixels, _to_rgb, edge)


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width of the picture in a file, as :func:`read_image` would return it.

    Only the header is read.

    Raises
    ------
    ImageError
        The file is missing, empty or no picture.
    """
    try:
        _check_file(Path(path))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with _beyond_pillow_limit(lambda: Image.open(path, formats=_FORMATS)) as picture:
                width, height = picture.size
                lying = picture.getexif().get(_ORIENTATION, 1) >= _LYING
                return (width, height) if lying else (height, width)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except Exception as error:  # as in _decode
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: {reason}") from error


def read_mask(path: str | Path, height: int, width: int) -> NDArray[np.bool_]:
    """A defect mask: True wherever the picture at `path` is not exactly black.

    Returns
    -------
    ``bool [height, width]``, nearest neighbour when the file has another size.

    Raises
    ------
    ImageError
        As :func:`read_image`, except that every sample type is accepted.
    """
    mask, _ = _decode(Path(path), MAX_PIXELS, _to_mask)
    return resize_mask(mask, height, width)


def as_image(array: object, name: str = "array") -> NDArray[np.uint8]:
    """An array as :func:`read_image` would have returned it.

    `array` is ``uint8``: grey ``[H, W]`` or ``[H, W, 1]``, RGB ``[H, W, 3]``, or RGBA
    ``[H, W, 4]``, which is laid over black. RGB is not copied when it is contiguous.

    Returns
    -------
    ``uint8 [H, W, 3]``, RGB, contiguous.

    Raises
    ------
    ImageError
        Anything else; the message starts with `name`.
    """
    expected = "expected uint8 0..255, [H, W], [H, W, 1], [H, W, 3] RGB or [H, W, 4] RGBA"
    if not isinstance(array, np.ndarray):
        raise ImageError(f"{name}: {type(array).__name__} is not a NumPy array; {expected}")
    if array.dtype != np.uint8:
        raise ImageError(f"{name}: dtype is {array.dtype}; {expected}")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = "; move the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"{name}: shape is {list(array.shape)}; {expected}{hint}")
    if min(array.shape[:2]) < _MIN_EDGE:
        raise ImageError(f"{name}: {_too_small(array.shape[1], array.shape[0])}")
    if channels == 4:
        return _over_black(array)
    if channels == 1:
        return _grey_to_rgb(array.reshape(array.shape[:2]))
    return np.ascontiguousarray(array)


def resize_image(
    image: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation = "bicubic"
) -> NDArray[np.uint8]:
    """``uint8 [H, W, 3]`` to a new ``uint8 [height, width, 3]``, antialiased when shrinking."""
    resized = Image.fromarray(image).resize(
        (width, height),
        _FILTERS[interpolation],
        # Pictures far larger than needed are first averaged by a whole factor: half the time, and
        # at 3.0 hardly a grey level's difference.
        reducing_gap=3.0,
    )
    return np.array(resized)


def prepare(
    image: NDArray[np.uint8], resize: int, crop: int | None, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """The square frame the encoder sees: the whole picture squashed, then its centre.

    `interpolation` is the encoder's own, see :class:`fapm.encoders.EncoderSpec`.

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


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """uint8 ``[H, W, 3]`` RGB as a JPEG; equal pictures give equal bytes."""
    buffer = BytesIO()
    # 4:4:4, because at half the resolution of colour thin contours turn to mud.
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """uint8 ``[H, W, 3]`` RGB as a PNG, without loss."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _decode(
    path: Path,
    max_pixels: int,
    convert: Callable[[Image.Image], NDArray[Any]],
    edge: int | None = None,
) -> tuple[NDArray[Any], tuple[int, int]]:
    _check_file(path)
    try:
        # Pillow warns about metadata nobody reads here. Threads that overlap in catch_warnings may
        # leave this filter behind; it is narrow enough for that to do no harm.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with _beyond_pillow_limit(lambda: Image.open(path, formats=_FORMATS)) as picture:
                _check_size(picture.size, max_pixels)
                width, height = picture.size
                if edge is not None:
                    picture.draft(None, (edge, edge))  # of any other format it does nothing
                _beyond_pillow_limit(picture.load)
                if picture.getexif().get(_ORIENTATION, 1) >= _LYING:
                    width, height = height, width
                ImageOps.exif_transpose(picture, in_place=True)
                return convert(picture), (height, width)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{path}: not a JPEG, PNG, BMP, TIFF or WebP picture that can be read; "
            "remove it or save it again as PNG"
        ) from None
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        if isinstance(error, OSError) and error.errno is not None:
            raise _unreadable(path, error) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{path}: damaged or cut off ({reason}); copy or save the picture again"
        ) from error


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:  # a null byte
        raise ImageError(f"{path}: no such file ({error}); check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path}: is a folder; name a picture in it")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: is a pipe or a device; name a picture")
    if status.st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes); copy or save the picture again")


def _unreadable(path: str | Path, error: OSError) -> ImageError:
    """The system, not the picture, is at fault."""
    return ImageError(f"{path}: cannot be read: {error.strerror or error}")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    pixels = width * height
    if pixels > max_pixels:
        raise ImageError(
            f"{width} x {height} is {pixels:,} pixels, the limit is {max_pixels:,}; if the picture "
            f"is genuine raise it with --max-pixels {pixels} (Python: max_pixels={pixels})"
        )
    if min(width, height) < _MIN_EDGE:
        raise ImageError(_too_small(width, height))


def _too_small(width: int, height: int) -> str:
    return f"{width} x {height} is too small; at least {_MIN_EDGE} x {_MIN_EDGE} is needed"


def _beyond_pillow_limit(action: Callable[[], _T]) -> _T:
    """Run `action`; if Pillow's own limit on pixels stops it, once more without that limit.

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


def _to_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode in ("I", "F"):
        kind = "32-bit float" if picture.mode == "F" else "signed or 32-bit"
        raise ImageError(
            f"{kind} samples have no fixed range; save the picture with 8 or 16 bits per channel"
        )
    if picture.mode.startswith("I;16"):
        shift = _sample_bits(picture) - 8
        return _grey_to_rgb((np.asarray(picture) >> shift).astype(np.uint8))
    if picture.has_transparency_data:
        return _over_black(np.asarray(picture.convert("RGBA")))
    return np.array(picture.convert("RGB"))


def _to_mask(picture: Image.Image) -> NDArray[np.bool_]:
    if picture.mode.startswith(("I", "F")):  # not by way of 8 bits: a 16-bit mask may count 0, 1, 2
        return np.asarray(np.asarray(picture) != 0)
    return np.asarray(_to_rgb(picture).any(axis=2))


def _sample_bits(picture: Image.Image) -> int:
    """Significant bits of a picture that Pillow holds with 16 bits."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return int(picture.tag_v2[_BITS_PER_SAMPLE][0])
    return 16


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _over_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    product = rgba[:, :, :3].astype(np.uint16) * rgba[:, :, 3:]  # at most 255 * 255: fits
    return ((product + 127) // 255).astype(np.uint8)


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
