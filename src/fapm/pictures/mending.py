"""Files whose pixels are whole, though Pillow refuses them: made such that it reads them."""

from __future__ import annotations

import re
from io import BytesIO

import numpy as np
from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_END = b"\xff\xd9"
_SCAN = 0xDA
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; Pillow reads no others
# In a scan 0xFF is followed by 0 or a restart marker; anything else ends it.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# What a scan that lacks nothing does not read.
_FILLINGS = (b"", b"\x55" * 64, b"\xaa" * 64)


def mended(data: bytes) -> bytes | None:
    """A picture file that Pillow refused, without what kept it from the pixels; None: it cannot be.

    - Text, colour profiles and whatever else of a PNG does not change its pixels may be huge or
      damaged: it is left out.
    - A JPEG may lack the two bytes at its end, which cheap cameras leave out, and nothing else.
    """
    if data.startswith(_PNG):
        return _without_metadata(data)
    if data.startswith(_JPEG):
        return _with_end(data)
    return None


def _without_metadata(data: bytes) -> bytes | None:
    kept = [_PNG]
    start = len(_PNG)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        # A capital letter: without it there are no pixels. The others are transparency and EXIF.
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf"):
            kept.append(data[start:end])
        start = end
    shorter = b"".join(kept)
    return shorter if len(shorter) < len(data) else None


def _with_end(data: bytes) -> bytes | None:
    data = data.removesuffix(b"\xff")
    if not _all_scans_begun(data):
        return None
    # Bits that are missing from the last scan would be taken from what is put behind it.
    pictures = [_pixels(data + filling + _END) for filling in _FILLINGS]
    if any(not np.array_equal(pictures[0], other) for other in pictures[1:]):
        return None
    return data + _END


def _pixels(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data), formats=("JPEG",)) as picture:
        return np.asarray(picture)


def _all_scans_begun(data: bytes) -> bool:
    """Whether each coefficient of each component of a JPEG is in some scan, to its last bit."""
    missing: dict[int, list[bool]] = {}
    for kind, segment in _segments(data):
        if kind in _FRAMES:
            missing = {number: [True] * 64 for number in segment[6::3]}
        elif kind == _SCAN:
            first, last, bits = segment[-3:]
            if bits & 15 == 0:
                for number in segment[1:-3:2]:
                    missing[number][first : last + 1] = [False] * (last + 1 - first)
    return bool(missing) and not any(map(any, missing.values()))


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """Marker and content of each segment of a JPEG."""
    found = []
    start = 2
    while marker := _MARKER.search(data, start):
        kind, start = data[marker.end() - 1], marker.end()
        length = int.from_bytes(data[start : start + 2], "big")
        segment = data[start + 2 : start + length]
        if length < 2 or len(segment) != length - 2:
            break
        found.append((kind, segment))
        start += length
    return found
