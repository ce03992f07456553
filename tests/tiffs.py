"""TIFF files of any kind, written by hand: what a decoder says of them can be checked."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SHORT, _LONG = 3, 4


def packed(samples: NDArray[np.integer], bits: int, order: str) -> bytes:
    """Rows of samples ``[h, w]``, each filled up to whole bytes, the first sample's bits first."""
    if bits in (16, 32):
        return samples.astype(f"{order}u{bits // 8}").tobytes()
    rows = (samples[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)
    return np.packbits(rows.reshape(len(samples), -1), axis=1).tobytes()


def tiff(
    samples: NDArray[np.integer],
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    big: bool = False,
    planar: bool = False,
    strips: int = 1,
    tile: int | None = None,
    deflate: bool = False,
    predictor: bool = False,
    reverse: bool = False,
    extra: Sequence[int] = (),
    sample_format: int = 1,
    tags: dict[int, Sequence[int]] | None = None,
) -> bytes:
    """A file of samples ``[h, w, c]``, which are not negative, in ``bits`` each.

    ``tile`` is the edge of tiles, a multiple of 16. ``reverse`` stores the last bit of each byte
    first. ``predictor`` (of 8 bits) stores differences, and needs ``deflate``.
    """
    height, width, channels = samples.shape
    planes = [samples[..., [c]] for c in range(channels)] if planar else [samples]

    def chunk(part: NDArray[np.integer]) -> bytes:
        if predictor:
            first = np.zeros_like(part[:, :1])
            part = np.diff(part, axis=1, prepend=first) % (1 << bits)
        data = packed(part.reshape(len(part), -1), bits, order)
        data = zlib.compress(data) if deflate else data
        return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data) if reverse else data

    chunks = []
    for plane in planes:
        if tile:
            padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            chunks += [
                chunk(padded[y : y + tile, x : x + tile])
                for y in range(0, height, tile)
                for x in range(0, width, tile)
            ]
        else:
            rows = -(-height // strips)
            chunks += [chunk(plane[y : y + rows]) for y in range(0, height, rows)]
    where, sizes = (324, 325) if tile else (273, 279)
    found: dict[int, Sequence[int]] = {
        256: [width], 257: [height], 258: [bits] * channels, 259: [8 if deflate else 1],
        262: [photometric], where: [0] * len(chunks), 277: [channels],
        sizes: [len(data) for data in chunks], 284: [2 if planar else 1],
        339: [sample_format] * channels,
    }  # fmt: skip
    found |= {322: [tile], 323: [tile]} if tile else {278: [-(-height // strips)]}
    found |= {317: [2]} if predictor else {}
    found |= {266: [2]} if reverse else {}
    found |= {338: extra} if extra else {}
    return _file({**found, **(tags or {})}, chunks, where, order, big)


def _file(
    tags: dict[int, Sequence[int]], chunks: list[bytes], where: int, order: str, big: bool
) -> bytes:
    inline, word = (8, "Q") if big else (4, "I")
    start = 16 if big else 8
    after = start + (8 if big else 2) + (20 if big else 12) * len(tags) + inline

    def kind(tag: int) -> int:
        return _LONG if tag in (where, 279, 325) else _SHORT

    def raw(tag: int, values: Sequence[int]) -> bytes:
        return struct.pack(f"{order}{len(values)}{'I' if kind(tag) == _LONG else 'H'}", *values)

    aside = sum(len(raw(t, v)) for t, v in tags.items() if len(raw(t, v)) > inline)
    position, offsets = after + aside, []
    for data in chunks:
        offsets.append(position)
        position += len(data)
    directory, elsewhere = b"", b""
    for tag, values in sorted({**tags, where: offsets}.items()):
        data = raw(tag, values)
        directory += struct.pack(f"{order}HH{word}", tag, kind(tag), len(values))
        if len(data) > inline:
            directory += struct.pack(f"{order}{word}", after + len(elsewhere))
            elsewhere += data
        else:
            directory += data.ljust(inline, b"\0")
    magic = b"II" if order == "<" else b"MM"
    head = magic + struct.pack(f"{order}H", 43 if big else 42)
    head += struct.pack(f"{order}HHQ", 8, 0, 16) if big else struct.pack(f"{order}I", 8)
    head += struct.pack(f"{order}{'Q' if big else 'H'}", len(tags))
    return head + directory + bytes(inline) + elsewhere + b"".join(chunks)
