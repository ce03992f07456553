"""Pictures of every kind to RGB uint8, or a clear error.

What decodes them is in :mod:`fapm.pictures.decoding` and :mod:`fapm.pictures.rgb`, what brings
them to another
size in :mod:`fapm.pictures.resize`.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fapm.errors import ImageError
from fapm.pictures import decoding
from fapm.pictures.rgb import Rgb, grey_to_rgb, over_black, to_rgb

MAX_PIXELS = 200_000_000
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

Picture: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image"
    " | NDArray[np.uint8]"
)


@dataclass(frozen=True)
class Decoded:
    """A picture's pixels, ``uint8 [h, w, 3]``, and height and width of the whole picture.

    ``alpha_ignored`` and ``brightest`` are those of :class:`fapm.pictures.rgb.Rgb`.
    """

    pixels: NDArray[np.uint8]
    height: int
    width: int
    alpha_ignored: bool = False
    brightest: int | None = None

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width of the whole picture, in those of ``pixels``, which may be reduced."""
        factor = max(1, round(self.height / len(self.pixels)))
        return self.height / factor, self.width / factor


def is_path(picture: object) -> bool:
    """Whether it names a file: a string or anything that is a path, such as ``os.DirEntry``."""
    return isinstance(picture, (str, os.PathLike))


def is_picture(picture: object) -> bool:
    """Whether it is one picture, rather than several or nothing that has to do with them.

    A path, bytes, a file, a Pillow picture, or an array of whatever library that is not a batch. An
    array of paths is several.
    """
    if is_path(picture) or isinstance(picture, (bytes, bytearray, memoryview, Image.Image)):
        return True
    if isinstance(picture, np.ndarray):
        return picture.ndim == 0 or (picture.ndim < 4 and picture.dtype.kind not in "UO")
    return hasattr(picture, "read") or len(getattr(picture, "shape", ())) in (2, 3)


def several(pictures: object) -> Iterable[Any]:
    """Pictures, of one or of several.

    Raises
    ------
    ImageError
        They are neither.
    """
    if is_picture(pictures):
        return [pictures]
    if not isinstance(pictures, Iterable):
        return [as_image(pictures)]  # or rather the error that says what it is
    return pictures


def lasting(picture: object) -> Any:
    """A picture that can be read more than once: a file becomes its bytes, a path a ``Path``.

    Raises
    ------
    ImageError
        The file cannot be read.
    """
    if is_path(picture):
        return Path(cast("str", picture))
    if hasattr(picture, "read") and not isinstance(picture, Image.Image):
        with _named(name_of(picture, "file")):
            return _content(picture)
    return picture


def name_of(picture: object, name: str) -> str:
    """The name of a picture: its path or that of its file, or else ``name``."""
    if is_path(picture):
        return os.fspath(cast("str", picture))
    attribute = "filename" if isinstance(picture, Image.Image) else "name"
    known = getattr(picture, attribute, None)
    return known if isinstance(known, str) and known else name


def read(
    picture: object, *, name: str = "array", edge: int | None = None, max_pixels: int = MAX_PIXELS
) -> Decoded:
    """One picture, whatever it comes in, decoded by the same rules.

    Parameters
    ----------
    picture
        a path; the bytes of a file, or an open one, which is read from its beginning; a Pillow
        picture; or an array as for :func:`as_image`.
    name
        of what has no path, for the message of an error.
    edge
        as in :func:`read_reduced`, for files and their bytes.

    Raises
    ------
    ImageError
        As :func:`read_image` and :func:`as_image`.
    """
    if is_path(picture):
        return _decoded(*_decode(Path(cast("str", picture)), max_pixels, to_rgb, edge))
    with _named(name):
        if isinstance(picture, Image.Image):
            rgb = decoding.decode_opened(picture, max_pixels, to_rgb)
        elif isinstance(picture, (bytes, bytearray, memoryview)) or hasattr(picture, "read"):
            file = BytesIO(_content(picture))
            return _decoded(*decoding.decode(file, max_pixels, to_rgb, edge))
        else:
            rgb = _from_array(picture)
    return _decoded(rgb, (rgb.pixels.shape[0], rgb.pixels.shape[1]))


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The picture in a JPEG, PNG, BMP, TIFF or WebP file, recognised by content, not by name.

    - EXIF orientation is applied.
    - 16-bit samples keep their high byte (12-bit ones their upper 8 bits), whatever the content:
      the same grey is the same grey in every picture.
    - Transparent pictures are laid over black; alpha that would hide everything is ignored.
    - CMYK is converted without a colour profile.
    - Of several pages or frames the first is taken.
    - Damaged metadata of a PNG, or the missing end marker of a JPEG, costs nothing.

    Returns
    -------
    ``uint8 [H, W, 3]``, RGB, 0..255, contiguous and writable.

    Raises
    ------
    ImageError
        The file is missing, empty, damaged, no picture, smaller than 2 x 2, of a sample type
        without a fixed range (float, signed, 32 bit), of a kind that is not decoded rightly, or has
        more than ``max_pixels`` pixels. The size is judged from the header, before anything is
        decoded.
    """
    return read(Path(path), max_pixels=max_pixels).pixels


def read_reduced(
    path: str | os.PathLike[str], edge: int, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """:func:`read_image` for what is going to be resized to ``edge`` pixels or less.

    A JPEG is averaged to a half, or decoded at a quarter or an eighth, as long as both of its edges
    keep ``edge`` pixels: several times as fast, with no change in accuracy (measured,
    ``docs/decisions.md``).

    Returns
    -------
    ``uint8 [h, w, 3]``, and height and width of the whole picture.

    Raises
    ------
    ImageError
        As :func:`read_image`.
    """
    found = read(Path(path), edge=edge, max_pixels=max_pixels)
    return found.pixels, (found.height, found.width)


def read_size(picture: object, name: str = "array") -> tuple[int, int]:
    """Height and width of a picture, as :func:`read` would return it.

    Of a file only the header is read.

    Raises
    ------
    ImageError
        The file is missing, empty or no picture.
    """
    if not is_path(picture):
        found = read(picture, name=name)
        return found.height, found.width
    path = Path(cast("str", picture))
    _check_file(path)
    with _named(str(path)), _opened(path) as file:
        return decoding.size_of(file)


def read_levels(path: str | Path) -> tuple[NDArray[Any], bool]:
    """Read a mask: one number for each pixel, 0 where it is black.

    Where all colours are black, the numbers of the palette count, or the transparency.

    Returns
    -------
    ``[H, W]``: uint8 (the brightest channel), or what a file of 16 bits or of floats holds; and
    whether the file is a JPEG, in which black is not exact.

    Raises
    ------
    ImageError
        As :func:`read_image`, except that every sample type is accepted.
    """
    formats = []

    def convert(picture: Image.Image, bits: int) -> NDArray[Any]:
        formats.append(picture.format)
        return _to_levels(picture, bits)

    levels, _ = _decode(Path(path), MAX_PIXELS, convert)
    return levels, formats[0] in ("JPEG", "MPO")


def as_image(array: object, name: str = "array") -> NDArray[np.uint8]:
    """An array as :func:`read_image` would have returned it.

    ``array`` is ``uint8``: grey ``[H, W]`` or ``[H, W, 1]``, RGB ``[H, W, 3]``, or RGBA
    ``[H, W, 4]``, which is laid over black. RGB is not copied when it is contiguous.

    Returns
    -------
    ``uint8 [H, W, 3]``, RGB, contiguous.

    Raises
    ------
    ImageError
        Anything else; the message starts with ``name``.
    """
    with _named(name):
        return _from_array(array).pixels


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
    convert: Callable[[Image.Image, int], Any],
    edge: int | None = None,
) -> tuple[Any, tuple[int, int]]:
    _check_file(path)
    with _named(str(path)), _opened(path) as file:
        return decoding.decode(file, max_pixels, convert, edge)


def _decoded(rgb: Rgb, size: tuple[int, int]) -> Decoded:
    return Decoded(rgb.pixels, *size, rgb.alpha_ignored, rgb.brightest)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors inside begin with what the picture is called."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    with file:
        yield file


def _content(picture: Any) -> bytes:
    if not hasattr(picture, "read"):
        data = bytes(picture)
    else:
        try:
            if picture.seekable():
                picture.seek(0)
            data = picture.read()
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot be read: {error}") from error
    if not isinstance(data, bytes):
        raise ImageError("the file is open as text; open it with mode 'rb'")
    if not data:
        raise ImageError("the file is empty (0 bytes); copy or save the picture again")
    return data


def _from_array(array: object) -> Rgb:
    expected = "expected uint8 0..255, [H, W], [H, W, 1], [H, W, 3] RGB or [H, W, 4] RGBA"
    if array is None:
        raise ImageError(
            "None is not a picture; cv2.imread gives it for a file that is missing or cannot be "
            "read: give the path instead"
        )
    if not isinstance(array, np.ndarray):
        hint = "; call .numpy(), with the channels last" if hasattr(array, "numpy") else ""
        raise ImageError(f"{type(array).__name__} is not a NumPy array; {expected}{hint}")
    array = np.asarray(array)  # of a matrix, which has two dimensions for ever
    if array.dtype != np.uint8:
        raise ImageError(f"dtype is {array.dtype}; {expected}")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = "; move the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"shape is {list(array.shape)}; {expected}{hint}")
    decoding.check_size((array.shape[1], array.shape[0]), math.inf)
    if channels == 4:
        return over_black(array)
    if channels == 1:
        return Rgb(grey_to_rgb(array.reshape(array.shape[:2])))
    return Rgb(np.ascontiguousarray(array))


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


def _to_levels(picture: Image.Image, bits: int) -> NDArray[Any]:
    if picture.mode.startswith(("I", "F")):  # not by way of 8 bits: a 16-bit mask may count 0, 1, 2
        return np.asarray(picture)
    levels: NDArray[np.uint8] = to_rgb(picture, bits).pixels.max(axis=2)
    if levels.any():
        return levels
    if picture.mode == "P":  # labels 0 and 1 with a palette that nobody filled
        return np.asarray(picture)
    if picture.has_transparency_data:  # drawn in black on nothing
        alpha: NDArray[np.uint8] = np.asarray(picture.convert("RGBA"))[:, :, 3]
        return alpha if alpha.min() < alpha.max() else levels
    return levels
