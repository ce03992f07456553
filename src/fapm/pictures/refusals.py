"""Kinds of pictures that are not decoded rightly, or not at all, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from PIL import Image, TiffImagePlugin

from fapm.errors import ImageError

_SAVE = "save it as PNG with 8 or 16 bits per channel"
_NO_RANGE = "have no fixed range; save the picture with 8 or 16 bits per channel"

# TIFF tags.
_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _CHANNELS = 258, 259, 262, 266, 277
_PLANAR, _COLOUR_MAP, _EXTRA = 284, 320, 338
_INK_SET, _SAMPLE_FORMAT = 332, 339
_COLOURS = {
    0: "grey (white is 0)", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "LAB",
    9: "ICC LAB", 10: "ITU LAB", 32803: "raw sensor data", 32844: "LogL", 32845: "LogLuv",
    34892: "linear raw",
}  # fmt: skip
_RGB, _PALETTE, _CMYK, _YCBCR = 2, 3, 5, 6
# Colours, channels and extra samples of what is read though each channel is stored by itself.
_PLANAR_READ = {(_RGB, 3, ()), (_RGB, 4, (2,)), (_CMYK, 4, ())}

# What follows 0xFF where the frame of a JPEG begins, of those that Pillow does not read.
_JPEG_FRAMES = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical",
    0xCB: "lossless", 0xCD: "hierarchical", 0xCE: "hierarchical", 0xCF: "hierarchical",
}  # fmt: skip


def refuse_unopenable(file: BinaryIO) -> None:
    """Refuse what Pillow would call damaged.

    Raises
    ------
    ImageError
        The kind of picture, and what to do.
    """
    if file.read(4) == b"MM\0+":
        raise ImageError(f"big-endian BigTIFF is not read; {_SAVE}")


def refuse_misread(picture: Image.Image) -> None:
    """Refuse what Pillow opens but decodes into something else. Nothing is decoded.

    Raises
    ------
    ImageError
        The kind of picture, and what to do.
    """
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        reason = _misread_tiff(picture.tag_v2)
    elif picture.format == "PNG":
        reason = _misread_png(picture)
    else:
        return
    if reason:
        raise ImageError(reason)


def _misread_tiff(tags: Mapping[int, Any]) -> str:
    bits = max(tags.get(_BITS, (1,)))
    colours = tags.get(_PHOTOMETRIC, 0)
    if bits == 8 and 2 in tags.get(_SAMPLE_FORMAT, (1,)):
        return f"TIFF with signed samples, which {_NO_RANGE}"
    channels, extra = tags.get(_CHANNELS, 1), tuple(tags.get(_EXTRA, ()))
    if channels > 1 and tags.get(_PLANAR, 1) == 2:
        sound = bits == 8 and tags.get(_FILL_ORDER, 1) == 1
        if not sound or (colours, channels, extra) not in _PLANAR_READ:
            return f"TIFF with planar {bits}-bit colour of this kind is not read; {_SAVE}"
    if bits == 16 and colours == 0:
        return f"TIFF with 16-bit grey whose white is 0 is not read; {_SAVE}"
    if colours == _YCBCR and tags.get(_COMPRESSION, 1) == 1:
        return f"TIFF with uncompressed YCbCr is not read; {_SAVE}"
    if colours == _PALETTE and 0 < max(tags.get(_COLOUR_MAP, (0,))) < 256:
        return f"TIFF with a palette of 8 instead of 16 bits is not read; {_SAVE}"
    if colours == _CMYK and tags.get(_INK_SET, 1) != 1:
        return f"TIFF with inks other than CMYK is not read; {_SAVE}"
    return ""


def _misread_png(picture: Image.Image) -> str:
    # Pillow keeps 8 bits of the colour, but 16 of the one that is transparent.
    if picture.mode == "RGB" and max(picture.info.get("transparency", (0,))) > 255:
        return f"16-bit PNG with a transparent colour (tRNS) is not read; {_SAVE}"
    return ""


def kind_of(file: BinaryIO, unknown: bool) -> str | None:
    """A sentence on a file that Pillow does not decode; None: it may just be damaged.

    ``unknown``: Pillow has said that it does not know its kind.
    """
    file.seek(0)
    head = file.read(16)
    try:
        if unknown and head[:4] in TiffImagePlugin.PREFIXES:
            return _kind_of_tiff(file, head)
        if head[:3] == b"\xff\xd8\xff":
            file.seek(0)
            return _kind_of_jpeg(file.read())
    except Exception:  # damaged bytes make Pillow raise nearly anything
        return None
    return None


def _kind_of_tiff(file: BinaryIO, head: bytes) -> str | None:
    tags = TiffImagePlugin.ImageFileDirectory_v2(head if head[2] == 43 else head[:8])
    file.seek(tags.next)
    tags.load(file)
    if reason := _misread_tiff(tags):
        return reason
    bits = sorted(set(tags.get(_BITS, (1,))))
    if 3 in tags.get(_SAMPLE_FORMAT, (1,)):
        return f"float samples {_NO_RANGE}"
    colours = tags.get(_PHOTOMETRIC, 0)
    facts = [
        f"{' and '.join(map(str, bits))} bits per sample",
        _COLOURS.get(colours, f"photometric {colours}"),
        f"{len(tags[_EXTRA])} extra samples" if _EXTRA in tags else "",
        "bits in reversed order" if tags.get(_FILL_ORDER, 1) == 2 else "",
        f"compression {tags.get(_COMPRESSION, 1)}",
    ]
    return f"TIFF of this kind is not read ({', '.join(filter(None, facts))}); {_SAVE}"


def _kind_of_jpeg(data: bytes) -> str | None:
    start = 2
    while start + 4 < len(data) and data[start] == 0xFF:
        kind, bits = data[start + 1], data[start + 4]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            if bits != 8:
                return f"JPEG with {bits} bits per sample is not read; {_SAVE}"
            if kind in _JPEG_FRAMES:
                return f"{_JPEG_FRAMES[kind]} JPEG is not read; {_SAVE}"
            return None
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return None
