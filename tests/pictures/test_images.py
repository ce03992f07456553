"""Pictures of every kind become RGB uint8; what cannot be used is refused in one clear line."""

from __future__ import annotations

import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fapm.errors import ImageError
from fapm.pictures.codec import IMAGE_SUFFIXES, read_image

DATA = Path(__file__).parents[3] / "shared" / "data"
COLOUR = (200, 90, 30)
EXIF_ORIENTATION = 0x0112


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG Pillow cannot write: any header, `rows` each with their filter byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def tiff(width: int, height: int, bits: int, pixels: bytes) -> bytes:
    """A grey TIFF Pillow cannot write: little-endian, uncompressed, one strip, any depth."""
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    entries[279] = len(pixels)
    directory = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value)
        for tag, value in sorted(entries.items())
    )
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels
    return head + struct.pack("<H", len(entries)) + directory + struct.pack("<I", 0)


def flat(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (6, 4), colour)  # type: ignore[arg-type]


def assert_flat(path: Path, colour: tuple[int, int, int], tolerance: int = 0) -> None:
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == (4, 6, 3)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert np.abs(image.astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize(
    ("suffix", "tolerance"),
    [
        (".png", 0), (".bmp", 0), (".tif", 0), (".tiff", 0),
        (".jpg", 3), (".jpeg", 3), (".webp", 6), (".PNG", 0),
    ],
)  # fmt: skip
def test_format_keeps_rgb_order(tmp_path: Path, suffix: str, tolerance: int) -> None:
    assert suffix.lower() in IMAGE_SUFFIXES
    path = tmp_path / f"part{suffix}"
    flat("RGB", COLOUR).save(path)
    assert_flat(path, COLOUR, tolerance)


def test_format_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    flat("RGB", COLOUR).save(tmp_path / "part.jpg", format="PNG")
    assert_flat(tmp_path / "part.jpg", COLOUR)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("L", 77, ".png", (77, 77, 77)),
        ("L", 77, ".bmp", (77, 77, 77)),
        ("1", 1, ".png", (255, 255, 255)),
        ("1", 0, ".tif", (0, 0, 0)),
        ("LA", (200, 255), ".png", (200, 200, 200)),
        ("LA", (200, 51), ".png", (40, 40, 40)),
        ("RGBA", (*COLOUR, 255), ".png", COLOUR),
        ("RGBA", (*COLOUR, 51), ".tif", (40, 18, 6)),
        ("RGBA", (*COLOUR, 16), ".png", (13, 6, 2)),
        # Nothing could be seen: alpha is a byte that nobody set.
        ("RGBA", (*COLOUR, 15), ".png", COLOUR),
        ("RGBA", (*COLOUR, 0), ".png", COLOUR),
        ("RGBA", (*COLOUR, 0), ".tif", COLOUR),
        ("LA", (200, 0), ".png", (200, 200, 200)),
        ("CMYK", (0, 255, 255, 0), ".tif", (255, 0, 0)),
    ],
)
def test_mode_becomes_rgb(
    tmp_path: Path, mode: str, colour: object, suffix: str, expected: tuple[int, int, int]
) -> None:
    path = tmp_path / f"part{suffix}"
    flat(mode, colour).save(path)
    assert_flat(path, expected)


def test_palette_and_its_transparency(tmp_path: Path) -> None:
    picture = flat("P", 1)
    picture.putpalette([9, 9, 9, *COLOUR])
    picture.save(tmp_path / "opaque.png")
    assert_flat(tmp_path / "opaque.png", COLOUR)
    picture.save(tmp_path / "clear.png", transparency=bytes([255, 51]))
    assert_flat(tmp_path / "clear.png", (40, 18, 6))
    picture.save(tmp_path / "other_index_clear.png", transparency=0)
    assert_flat(tmp_path / "other_index_clear.png", COLOUR)


def test_one_colour_declared_transparent_becomes_black(tmp_path: Path) -> None:
    picture = flat("RGB", COLOUR)
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(tmp_path / "part.png", transparency=COLOUR)
    found = read_image(tmp_path / "part.png")
    assert found[0, 0].tolist() == [1, 2, 3]
    assert found.sum() == 6


@pytest.mark.parametrize("keep_adobe_marker", [True, False])
def test_cmyk_jpeg(tmp_path: Path, keep_adobe_marker: bool) -> None:
    """Adobe stores CMYK inverted, and so does everybody else in JPEG."""
    path = tmp_path / "part.jpg"
    flat("CMYK", (0, 255, 255, 0)).save(path, quality=95)
    data = path.read_bytes()
    start = data.find(b"\xff\xee")
    if start >= 0 and not keep_adobe_marker:
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        path.write_bytes(data[:start] + data[start + 2 + length :])
    assert_flat(path, (255, 0, 0), tolerance=4)


@pytest.mark.parametrize("value", [0, 255, 256, 32_768, 51_400, 65_535])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path: Path, value: int, suffix: str) -> None:
    path = tmp_path / f"part{suffix}"
    Image.fromarray(np.full((4, 6), value, np.uint16)).save(path)
    assert_flat(path, (value >> 8,) * 3)


def test_16_bit_grey_does_not_depend_on_content(tmp_path: Path) -> None:
    dark = np.full((4, 6), 1000, np.uint16)
    bright = dark.copy()
    bright[0, 0] = 65_535
    for name, array in {"dark": dark, "bright": bright}.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "dark.png")[1:], read_image(tmp_path / "bright.png")[1:]
    )


def test_16_bit_big_endian_tiff(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (6, 4), b"\x80\x01" * 24).save(tmp_path / "part.tif")
    assert_flat(tmp_path / "part.tif", (128, 128, 128))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colour_and_alpha_follow_the_same_rule(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    samples = [*COLOUR, 255][:channels] if channels > 2 else [COLOUR[0], 255]
    row = b"\0" + b"".join(bytes([sample, 0xC8]) for sample in samples) * 6
    (tmp_path / "part.png").write_bytes(png(6, 4, 16, colour_type, row * 4))
    assert_flat(tmp_path / "part.png", COLOUR if channels > 2 else (COLOUR[0],) * 3)


def test_12_bit_tiff_uses_its_own_full_range(tmp_path: Path) -> None:
    row = bytes.fromhex("fff800") * 3  # 4095, 2048, ... two samples in three bytes
    (tmp_path / "part.tif").write_bytes(tiff(6, 4, 12, row * 4))
    assert read_image(tmp_path / "part.tif")[0, :, 0].tolist() == [255, 128] * 3


@pytest.mark.parametrize(
    ("array", "kind"),
    [(np.ones((4, 6), np.float32), "float"), (np.ones((4, 6), np.int32), "32-bit")],
)
def test_samples_without_a_range_are_refused(
    tmp_path: Path, array: NDArray[np.generic], kind: str
) -> None:
    path = tmp_path / "part.tif"
    Image.fromarray(array).save(path)
    with pytest.raises(ImageError, match=rf"part\.tif: .*{kind}.* no fixed range; save"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    """The stored picture has a red top left corner; EXIF says which corner that really is."""
    stored = np.full((32, 48, 3), 20, np.uint8)
    stored[:8, :8] = (250, 0, 0)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(stored).save(tmp_path / f"part{suffix}", exif=exif)

    image = read_image(tmp_path / f"part{suffix}")

    row, column = {
        1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0),
        5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0),
    }[orientation]  # fmt: skip
    assert image.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
    assert image[row, column, 0] > 200
    assert (image[[0, 0, -1, -1], [0, -1, 0, -1], 0] > 200).sum() == 1


def test_exif_transposition_is_not_confused_with_rotation(tmp_path: Path) -> None:
    stored = np.full((4, 6), 20, np.uint8)
    stored[0, :3] = 250
    exif = Image.Exif()
    for orientation, column in {5: 0, 6: -1}.items():
        exif[EXIF_ORIENTATION] = orientation
        Image.fromarray(stored).save(tmp_path / "part.png", exif=exif)
        assert read_image(tmp_path / "part.png")[:3, column, 0].tolist() == [250] * 3


def test_damaged_exif_costs_neither_the_picture_nor_a_warning(tmp_path: Path) -> None:
    flat("RGB", COLOUR).save(tmp_path / "part.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x63\0\x12\x01")
    assert_flat(tmp_path / "part.jpg", COLOUR, tolerance=3)


def test_first_of_several_pages(tmp_path: Path) -> None:
    flat("RGB", COLOUR).save(
        tmp_path / "part.tif", save_all=True, append_images=[flat("RGB", (1, 2, 3))]
    )
    assert_flat(tmp_path / "part.tif", COLOUR)


def truncate(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"part{suffix}"
    truncate(path)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "save" in message
    assert "\n" not in message


def test_damaged_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "part.jpg"
    truncate(path)
    with pytest.raises(ImageError, match=r"part\.jpg: damaged or cut off \(.*\); copy or save"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", r"empty \(0 bytes\)"), (b"these are my notes\n", "not a JPEG, PNG, BMP, TIFF or WebP")],
)
def test_no_picture_at_all(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"part\.png: .*{reason}"):
        read_image(path)


def test_formats_outside_the_list_are_not_tried(tmp_path: Path) -> None:
    flat("L", 1).save(tmp_path / "part.png", format="GIF")
    with pytest.raises(ImageError, match="not a JPEG, PNG, BMP, TIFF or WebP"):
        read_image(tmp_path / "part.png")


def test_folder_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder; name a picture in it"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_too_small(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "part.png"
    Image.new("L", size).save(path)
    with pytest.raises(ImageError, match=rf"part\.png: {size[0]} x {size[1]} is too small"):
        read_image(path)


def test_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(20_000, 20_000, 8, 2, b""))  # decoding it would fail in another way
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path}: 20000 x 20000 is 400,000,000 pixels, the limit is 200,000,000; if the picture is "
        "genuine raise it with --max-pixels 400000000 (Python: max_pixels=400000000)"
    )


def test_limit_is_inclusive(tmp_path: Path) -> None:
    flat("RGB", COLOUR).save(tmp_path / "part.png")
    assert read_image(tmp_path / "part.png", max_pixels=24).shape == (4, 6, 3)
    with pytest.raises(ImageError, match="limit is 23; "):
        read_image(tmp_path / "part.png", max_pixels=23)


@pytest.mark.parametrize("pillow_limit", [5, 13])  # 24 pixels: Pillow raises, Pillow warns
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", {}), (".jpg", {}), (".bmp", {}), (".webp", {"lossless": True}),
        (".tif", {}), (".tif", {"compression": "tiff_lzw"}),
    ],
)  # fmt: skip
def test_pillows_own_limit_is_out_of_the_way_and_comes_back(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    options: dict[str, object],
    pillow_limit: int,
) -> None:
    path = tmp_path / f"part{suffix}"
    flat("RGB", COLOUR).save(path, **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    assert_flat(path, COLOUR, tolerance=3)
    assert pillow_limit == Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="limit is 23; "):
        read_image(path, max_pixels=23)
    assert pillow_limit == Image.MAX_IMAGE_PIXELS


def test_threads_do_not_lose_pillows_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat("RGB", COLOUR).save(tmp_path / "part.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            images = list(pool.map(read_image, [tmp_path / "part.tif"] * 400))
    finally:
        sys.setswitchinterval(interval)
    assert all((image == COLOUR).all() for image in images)
    assert Image.MAX_IMAGE_PIXELS == 5


@given(
    magic=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM", b"\xff\xd8\xff", b""]),
    tail=st.binary(max_size=200),
)
def test_any_bytes_are_a_picture_or_an_image_error(
    tmp_path_factory: pytest.TempPathFactory, magic: bytes, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.png"
    path.write_bytes(magic + tail)
    message = f"{path}: "
    try:
        read_image(path, max_pixels=10_000)
    except ImageError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


@pytest.mark.skipif(not DATA.exists(), reason="the shared pictures are not here")
@pytest.mark.parametrize(
    "pattern", ["native/**/*.png", "magnetic_tile/train/good/*", "screw/train/good/*"]
)
def test_real_pictures_equal_opencvs_decoding(pattern: str) -> None:
    paths = sorted(DATA.glob(pattern))[:3]
    assert paths
    for path in paths:
        other = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        difference = np.abs(read_image(path).astype(int) - other)
        assert difference.max() <= (0 if path.suffix == ".png" else 6)
