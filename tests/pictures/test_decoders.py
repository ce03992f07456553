"""Decoders are checked, not believed: files written by hand, beside what they must show.

What cannot be decoded exactly must be refused by its name.
"""

from __future__ import annotations

import io
import struct
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image

from fapm.errors import ImageError
from fapm.pictures import codec
from tiffs import packed, tiff

HEIGHT, WIDTH = 12, 17
ORIENTATION = 274
GREY_WHITE_0, GREY, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8


def samples(channels: int, bits: int) -> NDArray[np.int64]:
    return np.random.default_rng(bits).integers(0, 1 << bits, (HEIGHT, WIDTH, channels))


def upper(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """In 8 bits: few bits are spread, of many the upper ones are kept."""
    return values * 255 // ((1 << bits) - 1) if bits < 8 else values >> (bits - 8)


def shown(values: NDArray[np.int64], bits: int, colours: int, extra: tuple[int, ...]) -> Any:
    """What samples of a TIFF show, RGB ``[h, w, 3]``."""
    eight = upper(values, bits)
    if colours == CMYK:
        return (255 - eight[..., :3]) * (255 - eight[..., 3:4]) / 255
    count = 3 if colours == RGB else 1
    colour = 255 - eight[..., :1] if colours == GREY_WHITE_0 else eight[..., :count]
    if extra[:1] == (2,) or (colours == RGB and eight.shape[2] == 4 and not extra):
        colour = colour * eight[..., [count]] / 255
    return np.broadcast_to(colour, (HEIGHT, WIDTH, 3))


def decoded(data: bytes) -> NDArray[np.uint8] | str:
    """The pixels, or why there are none."""
    try:
        return codec.read(data).pixels
    except ImageError as error:
        return str(error)


LAYOUTS: list[dict[str, Any]] = [
    {}, {"strips": 3}, {"tile": 16}, {"deflate": True}, {"deflate": True, "tile": 16},
    {"reverse": True}, {"reverse": True, "deflate": True},
]  # fmt: skip
KINDS: list[tuple[int, int, tuple[int, ...]]] = [
    (GREY_WHITE_0, 1, ()), (GREY, 1, ()), (GREY, 2, (0,)), (GREY, 2, (1,)), (GREY, 2, (2,)),
    (RGB, 3, ()), (RGB, 4, ()), (RGB, 4, (0,)), (RGB, 4, (1,)), (RGB, 4, (2,)), (RGB, 5, (2, 0)),
    (CMYK, 4, ()),
]  # fmt: skip


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 16])
@pytest.mark.parametrize(("colours", "channels", "extra"), KINDS)
def test_tiff_is_decoded_exactly_or_refused_by_name(
    colours: int, channels: int, extra: tuple[int, ...], bits: int
) -> None:
    values = samples(channels, bits)
    if extra == (1,):  # premultiplied
        alpha = values[..., -1:]
        values = np.concatenate([values[..., :-1] * alpha // ((1 << bits) - 1), alpha], axis=2)
    expected = shown(values, bits, colours, extra)
    for order, big, planar, layout in product("<>", (False, True), (False, True), LAYOUTS):
        if (big and layout) or (planar and channels == 1):
            continue
        data = tiff(
            values, bits, colours, order=order, big=big, planar=planar, extra=extra, **layout
        )
        kind = f"{order} big {big} planar {planar} {layout}"
        found = decoded(data)
        if isinstance(found, str):
            assert "TIFF" in found or "samples" in found, f"{kind}: {found}"
            assert "; save" in found, f"{kind}: {found}"
        else:
            assert np.abs(found - expected).max() <= 1.01, kind


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("colours", "channels", "bits"),
    [(GREY_WHITE_0, 1, 1), (GREY, 1, 1), (GREY, 1, 4), (GREY, 1, 8), (GREY, 1, 16), (RGB, 3, 8),
     (RGB, 3, 16), (RGB, 4, 8), (CMYK, 4, 8)],
)  # fmt: skip
@pytest.mark.parametrize("layout", LAYOUTS[:5])
def test_usual_tiffs_are_decoded(
    colours: int, channels: int, bits: int, layout: dict[str, Any], order: str
) -> None:
    values = samples(channels, bits)
    found = codec.read(tiff(values, bits, colours, order=order, **layout)).pixels
    assert np.abs(found - shown(values, bits, colours, ())).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_with_a_predictor(bits: int) -> None:
    values = samples(3, bits)
    data = tiff(values, bits, RGB, deflate=True, predictor=True)
    np.testing.assert_array_equal(codec.read(data).pixels, upper(values, bits))


def test_12_bit_tiff() -> None:
    values = samples(1, 12)
    found = codec.read(tiff(values, 12, GREY)).pixels
    np.testing.assert_array_equal(found[..., :1], values >> 4)


def test_palette_of_a_tiff() -> None:
    values, palette = samples(1, 4), np.random.default_rng(0).integers(0, 256, (3, 16))
    data = tiff(values, 4, PALETTE, tags={320: (palette * 257).ravel().tolist()})
    np.testing.assert_array_equal(codec.read(data).pixels, palette.T[values[..., 0]])
    with pytest.raises(ImageError, match="TIFF with a palette of 8 instead of 16 bits"):
        codec.read(tiff(values, 4, PALETTE, tags={320: palette.ravel().tolist()}))


def test_lab_tiff() -> None:
    """0 is black and 255 white; what is green has a negative a."""
    values = np.zeros((HEIGHT, WIDTH, 3), np.int64)
    values[:, 4:] = (255, 0, 0)
    values[:, 8:] = (round(46.3 * 2.55), -51 % 256, 50)  # rgb(0, 128, 0)
    found = codec.read(tiff(values, 8, LAB)).pixels[0, [0, 4, 8]].astype(int)
    assert np.abs(found - [(0, 0, 0), (255, 255, 255), (0, 128, 0)]).max() <= 6


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (tiff(samples(3, 16), 16, RGB, planar=True), "TIFF with planar 16-bit colour"),
        (tiff(samples(1, 16), 16, GREY_WHITE_0), "TIFF with 16-bit grey whose white is 0"),
        (tiff(samples(1, 8), 8, GREY, sample_format=2), "TIFF with signed samples"),
        (tiff(samples(1, 16), 16, GREY, sample_format=2), "signed or 32-bit samples"),
        (tiff(samples(1, 32), 32, GREY, sample_format=3), "float samples have no fixed range"),
        (tiff(samples(3, 32), 32, RGB, sample_format=3), "float samples have no fixed range"),
        (tiff(samples(3, 8), 8, YCBCR), "TIFF with uncompressed YCbCr"),
        (tiff(samples(4, 8), 8, CMYK, tags={332: [2]}), "TIFF with inks other than CMYK"),
        (tiff(samples(1, 10), 10, GREY), r"not read \(10 bits per sample, grey"),
        (tiff(samples(1, 16), 16, GREY, order=">", big=True), "big-endian BigTIFF"),
        (tiff(samples(1, 8), 8, GREY, tags={259: [34712]}), "compression 34712"),
    ],
)  # fmt: skip
def test_tiff_that_is_refused(data: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / "part.tif"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=rf"part\.tif: .*{name}.*; save .* 8 or 16 bits"):
        codec.read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "layout", [{}, {"deflate": True}, {"tile": 16}, {"bits": 16}, {"channels": 3}]
)
def test_a_turned_tiff_has_one_size(
    tmp_path: Path, orientation: int, layout: dict[str, Any]
) -> None:
    bits, channels = layout.pop("bits", 8), layout.pop("channels", 1)
    values = samples(channels, bits)
    path = tmp_path / "part.tif"
    tags = {ORIENTATION: [orientation]}
    path.write_bytes(tiff(values, bits, RGB if channels == 3 else GREY, tags=tags, **layout))
    layout |= {"bits": bits, "channels": channels}
    stored = np.broadcast_to(upper(values, bits), (HEIGHT, WIDTH, 3))
    expected = turned(stored, orientation)
    np.testing.assert_array_equal(codec.read_image(path), expected)
    assert codec.read_size(path) == codec.read_reduced(path, 2)[1] == expected.shape[:2]


def turned(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """By what the standard says the first row and column are."""
    if orientation > 4:
        stored = stored.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return stored[rows, columns]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_turned_pictures_have_one_size(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"part{suffix}"
    Image.fromarray(np.zeros((32, 80, 3), np.uint8)).save(path, exif=exif)
    size = (32, 80) if orientation < 5 else (80, 32)
    assert codec.read_image(path).shape[:2] == size
    assert codec.read_size(path) == codec.read_reduced(path, 8)[1] == size


# --- PNG ---


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    values: NDArray[np.int64], bits: int, colour_type: int, *chunks: bytes, interlaced: bool = False
) -> bytes:
    passes = [values]
    if interlaced:
        starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2),
                  (0, 1, 2, 2), (1, 0, 2, 1)]  # fmt: skip
        passes = [values[y::dy, x::dx] for y, x, dy, dx in starts]
    rows = b"".join(
        b"\0" + packed(row.reshape(1, -1), bits, ">") for part in passes for row in part if row.size
    )
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour_type, 0, 0, interlaced)
    return b"".join([
        b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *chunks,
        chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""),
    ])  # fmt: skip


PNG_KINDS = [(0, b, 1) for b in (1, 2, 4, 8, 16)] + [
    (kind, bits, channels) for kind, channels in ((2, 3), (4, 2), (6, 4)) for bits in (8, 16)
]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "bits", "channels"), PNG_KINDS)
def test_png(colour_type: int, bits: int, channels: int, interlaced: bool) -> None:
    values = samples(channels, bits)
    expected = upper(values, bits).astype(float)
    if colour_type >= 4:
        expected = expected[..., :-1] * expected[..., -1:] / 255
    found = codec.read(png(values, bits, colour_type, interlaced=interlaced)).pixels
    assert np.abs(found - expected).max() <= 0.5
    # What the camera's 12 bits are is left to whoever fits: every grey is the same in every file.
    marked = png(values, bits, colour_type, chunk(b"sBIT", bytes([min(bits, 7)] * channels)))
    np.testing.assert_array_equal(codec.read(marked).pixels, found)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_with_a_palette(bits: int) -> None:
    values = samples(1, bits)
    palette = np.random.default_rng(0).integers(0, 256, (1 << bits, 3))
    alpha = np.random.default_rng(1).integers(16, 256, (1 << bits, 1))
    chunks = chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    found = codec.read(png(values, bits, 3, chunks)).pixels
    np.testing.assert_array_equal(found, palette[values[..., 0]])
    clear = chunk(b"tRNS", alpha.astype(np.uint8).tobytes())
    found = codec.read(png(values, bits, 3, chunks, clear)).pixels
    assert np.abs(found - (palette * alpha / 255)[values[..., 0]]).max() <= 0.5


@pytest.mark.parametrize(("bits", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3)])
def test_png_with_one_transparent_colour(bits: int, channels: int) -> None:
    values = samples(channels, bits)
    key = values[3, 5]
    expected = np.broadcast_to(upper(values, bits), (HEIGHT, WIDTH, 3)).copy()
    expected[(values == key).all(axis=2)] = 0
    clear = chunk(b"tRNS", b"".join(struct.pack(">H", k) for k in key.tolist()))
    found = codec.read(png(values, bits, 0 if channels == 1 else 2, clear)).pixels
    np.testing.assert_array_equal(found, expected)


def test_png_whose_transparent_colour_has_16_bits() -> None:
    clear = chunk(b"tRNS", struct.pack(">HHH", 256, 1, 2))
    with pytest.raises(ImageError, match="16-bit PNG with a transparent colour"):
        codec.read(png(samples(3, 16), 16, 2, clear))


NOISE = np.random.default_rng(0).bytes(2_000_000)


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(NOISE, 1)),
        chunk(b"zTXt", b"notes\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"tEXt", b"notes\0" + bytes(70_000_000)),
        chunk(b"tEXt", b"notes\0are wrong")[:-1] + b"?",
        chunk(b"pHYs", b"?"),
        chunk(b"iTXt", b"notes\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
    ],
    ids=["iCCP", "zTXt", "tEXt", "CRC", "pHYs", "iTXt"],
)
def test_metadata_does_not_cost_the_pixels_of_a_png(metadata: bytes, tmp_path: Path) -> None:
    values = samples(3, 8)
    path = tmp_path / "part.png"
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path.write_bytes(
        png(values, 8, 2, chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")), metadata)
    )
    np.testing.assert_array_equal(codec.read_image(path), turned(values, 6))
    assert codec.read_size(path) == (WIDTH, HEIGHT)


def test_damaged_exif_does_not_cost_the_pixels_of_a_png() -> None:
    values = samples(3, 8)
    for exif in (b"", b"?", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\1\1\x12\0\2"):
        data = png(values, 8, 2, chunk(b"eXIf", exif))
        np.testing.assert_array_equal(codec.read(data).pixels, values)


def test_metadata_does_not_hide_a_bomb() -> None:
    data = png(samples(3, 8), 8, 2, chunk(b"tEXt", b"wrong")[:-1] + b"?")
    size = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = data[:8] + chunk(b"IHDR", size) + data[33:]
    with pytest.raises(ImageError, match="900,000,000 pixels, the limit is"):
        codec.read(data)


def test_damaged_pixels_of_a_png_are_still_refused() -> None:
    data = bytearray(png(samples(3, 8), 8, 2, chunk(b"tEXt", b"wrong")[:-1] + b"?"))
    data[-40] ^= 255
    with pytest.raises(ImageError, match="damaged or cut off"):
        codec.read(bytes(data))


# --- BMP ---


def bmp(values: NDArray[np.int64], bits: int, *, version: int = 40, top_down: bool = False,
        alpha: bool = False, masks: tuple[int, ...] = ()) -> bytes:  # fmt: skip
    palette = b""
    if bits <= 8:
        grey = np.arange(1 << bits) * 255 // ((1 << bits) - 1)
        palette = np.stack([grey, grey, grey, 0 * grey], 1).astype(np.uint8).tobytes()
    ordered = values if top_down else values[::-1]
    if bits == 16:
        rows = [row.astype("<u2").tobytes() for row in ordered[..., 0]]
    else:
        rows = [packed(row.reshape(1, -1), min(bits, 8), "<") for row in ordered]
    pixels = b"".join(row + bytes(-len(row) % 4) for row in rows)
    signed = -HEIGHT if top_down else HEIGHT
    head = struct.pack("<IiiHHIIiiII", version, WIDTH, signed, 1, bits, 3 if masks else 0,
                       len(pixels), 2835, 2835, 0, 0)  # fmt: skip
    head += b"".join(struct.pack("<I", mask) for mask in masks) if version > 40 else b""
    head = head.ljust(version, b"\0")
    head += b"".join(struct.pack("<I", m) for m in masks[:3]) if version == 40 else b""
    start = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + head + palette + pixels


@pytest.mark.parametrize("version", [40, 56, 108, 124])
@pytest.mark.parametrize("top_down", [False, True])
def test_bmp(version: int, top_down: bool) -> None:
    if version == 56 and int(PIL.__version__.split(".")[0]) < 11:
        pytest.skip("this Pillow does not know version 3")
    for bits in (1, 4, 8):
        values = samples(1, bits)
        found = codec.read(bmp(values, bits, version=version, top_down=top_down)).pixels
        assert np.abs(found - upper(values, bits)).max() == 0
    values = samples(3, 8)
    found = codec.read(bmp(values[..., ::-1], 24, version=version, top_down=top_down)).pixels
    np.testing.assert_array_equal(found, values)
    values = samples(1, 16)
    five, six = (0xF800, 0x07E0, 0x001F, 0), values[..., 0]
    found = codec.read(bmp(values, 16, version=version, top_down=top_down, masks=five)).pixels
    expected = np.stack([(six >> 11) * 255 / 31, (six >> 5 & 63) * 255 / 63, (six & 31) * 255 / 31])
    assert np.abs(found - np.moveaxis(expected, 0, 2)).max() <= 1


@pytest.mark.parametrize("version", [40, 108, 124])
@pytest.mark.parametrize("fourth", [0, 3, None])
def test_bmp_of_32_bits(version: int, fourth: int | None) -> None:
    """Grabbers leave anything in the fourth byte, and some say that it is alpha."""
    values = samples(4, 8)
    if fourth is not None:
        values[..., 3] = fourth
    plain = bmp(values[..., [2, 1, 0, 3]], 32, version=version)
    np.testing.assert_array_equal(codec.read(plain).pixels, values[..., :3])
    if version > 40:
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        data = bmp(values[..., [2, 1, 0, 3]], 32, version=version, masks=masks)
        expected = values[..., :3] * (values[..., 3:] / 255 if fourth is None else 1)
        found = codec.read(data)
        assert np.abs(found.pixels - expected).max() <= 0.5
        assert found.alpha_ignored == (fourth is not None)


@pytest.mark.parametrize("bits", [4, 8])
def test_bmp_with_run_lengths(bits: int) -> None:
    values = np.repeat(samples(1, bits)[:, :3], 6, axis=1)[:, :WIDTH]
    data = b""
    for row in values[::-1, :, 0].tolist():
        for start in range(0, WIDTH, 6):
            run = row[start : start + 6]
            data += bytes([len(run), run[0] * 17 if bits == 4 else run[0]])
        data += b"\0\0"
    data += b"\0\1"
    plain = bmp(values, bits)
    offset = struct.unpack_from("<I", plain, 10)[0]
    head = bytearray(plain[:offset])
    struct.pack_into("<I", head, 30, 2 if bits == 4 else 1)
    found = codec.read(bytes(head) + data).pixels
    assert np.abs(found - upper(values, bits)).max() == 0


# --- JPEG and WebP ---


def smooth() -> NDArray[np.uint8]:
    y, x = np.mgrid[:64, :80]
    return np.stack([2 * y, 3 * x, 255 - 2 * y], axis=2).astype(np.uint8)


def saved(picture: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_as_opencv_decodes_it(subsampling: int, progressive: bool) -> None:
    data = saved(smooth(), "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    assert np.abs(codec.read(data).pixels - other).max() <= 3


def test_jpeg_of_another_kind_is_refused_by_name() -> None:
    data = bytearray(saved(smooth(), "JPEG"))
    frame = data.find(b"\xff\xc0")
    data[frame + 4] = 12
    with pytest.raises(ImageError, match="JPEG with 12 bits per sample is not read"):
        codec.read(bytes(data))
    data[frame + 1], data[frame + 4] = 0xC3, 8
    with pytest.raises(ImageError, match="lossless JPEG is not read"):
        codec.read(bytes(data))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_may_lack_its_end_and_nothing_else(progressive: bool, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    whole = saved(noise, "JPEG", quality=80, progressive=progressive)
    for data in (whole[:-2], whole[:-1], whole[:-2] + bytes(512)):
        for edge in (None, 8):
            found = codec.read(data, edge=edge).pixels
            np.testing.assert_array_equal(found, codec.read(whole, edge=edge).pixels)
    path = tmp_path / "part.jpg"
    path.write_bytes(whole[:-2])
    np.testing.assert_array_equal(codec.read_image(path), codec.read(whole).pixels)
    for cut in (4, 8, 40, len(whole) // 2, len(whole) - 700):
        with pytest.raises(ImageError, match="damaged or cut off"):
            codec.read(whole[:-cut])
    if progressive:  # the last scan is missing, and all others are whole
        with pytest.raises(ImageError, match="damaged or cut off"):
            codec.read(whole[: whole.rfind(b"\xff\xda")])


def test_webp() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    found = codec.read(saved(rgba, "WEBP", lossless=True, exact=True)).pixels
    assert np.abs(found - rgba[..., :3] * (rgba[..., 3:] / 255)).max() <= 0.5
    picture = smooth()
    first = Image.fromarray(picture)
    file = io.BytesIO()
    first.save(file, "WEBP", lossless=True, save_all=True, append_images=[first.rotate(180)])
    np.testing.assert_array_equal(codec.read(file.getvalue()).pixels, picture)
    assert (
        np.abs(codec.read(saved(picture, "WEBP", quality=95)).pixels - picture.astype(int)).mean()
        < 4
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP"])
def test_transparent_everywhere_is_taken_without_alpha(kind: str) -> None:
    rgba = np.dstack([smooth(), np.zeros((64, 80), np.uint8)])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = codec.read(saved(rgba, kind, **options))
    np.testing.assert_array_equal(found.pixels, rgba[..., :3])
    np.testing.assert_array_equal(codec.as_image(rgba), rgba[..., :3])
    assert found.alpha_ignored or kind == "BMP"
