"""Arrays: accepted, brought into the encoder's frame, and the map brought back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fapm.errors import ImageError
from fapm.pictures.codec import as_image, read_image
from fapm.pictures.resize import Interpolation, resize_image
from framing import prepare, prepare_mask, restore_map

COLOUR = (200, 90, 30)


@given(height=st.integers(2, 9), width=st.integers(2, 9), channels=st.sampled_from([None, 1, 3, 4]))
def test_as_image_accepts_grey_rgb_and_rgba(height: int, width: int, channels: int | None) -> None:
    shape = (height, width) if channels is None else (height, width, channels)
    array = np.random.default_rng(height).integers(0, 256, shape, np.uint8)
    image = as_image(array)
    assert image.dtype == np.uint8
    assert image.shape == (height, width, 3)
    assert image.flags.c_contiguous
    if channels == 4:
        exact = array[:, :, :3].astype(float) * array[:, :, 3:] / 255
        np.testing.assert_allclose(image, exact, atol=0.5)
    else:
        np.testing.assert_array_equal(image - array.reshape(height, width, -1), 0)


def test_as_image_equals_read_image(tmp_path: Path) -> None:
    for mode, channels in {"L": 1, "RGB": 3, "RGBA": 4}.items():
        array = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8).squeeze()
        Image.fromarray(array).save(tmp_path / f"{mode}.png")
        np.testing.assert_array_equal(as_image(array), read_image(tmp_path / f"{mode}.png"))


def test_as_image_makes_views_contiguous() -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    flipped = as_image(array[::-1, :, ::-1])
    assert flipped.flags.c_contiguous
    np.testing.assert_array_equal(flipped, array[::-1, :, ::-1])


@pytest.mark.parametrize(
    ("array", "given"),
    [
        ([[1, 2], [3, 4]], "list is not a NumPy array"),
        (np.zeros((4, 4, 3), np.float32), "dtype is float32"),
        (np.zeros((4, 4), np.uint16), "dtype is uint16"),
        (np.zeros((4, 4), np.bool_), "dtype is bool"),
        (np.zeros(4, np.uint8), r"shape is \[4\]"),
        (np.zeros((4, 4, 2), np.uint8), r"shape is \[4, 4, 2\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"shape is \[1, 4, 4, 3\]"),
        (np.zeros((3, 32, 32), np.uint8), r"shape is \[3, 32, 32\].*move the channels last"),
    ],
)
def test_as_image_says_what_was_given_and_what_is_expected(array: object, given: str) -> None:
    with pytest.raises(ImageError, match=rf"^frame: {given}") as caught:
        as_image(array, "frame")
    assert "expected uint8 0..255" in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1, 3), (0, 4)])
def test_as_image_refuses_what_is_too_small(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=rf"^frame: {shape[1]} x {shape[0]} is too small"):
        as_image(np.zeros(shape, np.uint8), "frame")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_is_antialiased_when_shrinking(interpolation: Interpolation) -> None:
    checks = np.indices((64, 64)).sum(0) % 2 * np.uint8(200)
    image = np.repeat(checks.astype(np.uint8)[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(resize_image(image, 64, 64, interpolation), image)
    inner = resize_image(image, 16, 16, interpolation)[2:-2, 2:-2].astype(int)
    assert np.abs(inner - 100).max() <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(24, 21), (40, 31), (150, 90)])
def test_resize_equals_torch(interpolation: Interpolation, size: tuple[int, int]) -> None:
    """So that a graph or another program can repeat it."""
    # Away from 0 and 255, where Pillow clips after each axis and torch at the end.
    image = np.random.default_rng(0).integers(80, 176, (60, 60, 3), dtype=np.uint8)
    floats = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    if size == (24, 21):  # at half the size or less whole pixels are averaged first
        floats = F.avg_pool2d(floats, 2)
    expected = (
        F.interpolate(floats, size, mode=interpolation, antialias=True, align_corners=False)
        .clamp(0, 255)[0]
        .permute(1, 2, 0)
    )
    resized = resize_image(image, *size, interpolation)
    assert np.abs(resized - expected.numpy()).max() <= 1.5  # Pillow rounds after each axis


def test_pictures_far_larger_than_needed_are_resized_alike() -> None:
    """The shortcut for large pictures stays within a few grey levels of the plain resize."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (50, 50, 3), dtype=np.uint8))
    image = np.asarray(small.resize((1000, 1000), Image.Resampling.BICUBIC))
    plain = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC))
    difference = np.abs(resize_image(image, 64, 64).astype(int) - plain.astype(int))
    assert difference.max() <= 8
    assert difference.mean() <= 2


def test_resize_of_very_long_pictures() -> None:
    """Line cameras give pictures longer than 32,767 pixels."""
    assert (prepare(np.full((40_000, 4, 3), 9, np.uint8), 32, None, "bicubic") == 9).all()


sizes = st.integers(2, 90)
frames = st.integers(32, 64).flatmap(
    lambda resize: st.tuples(st.just(resize), st.none() | st.integers(32, resize))
)


@given(height=sizes, width=sizes, frame=frames)
def test_prepare_gives_a_square_and_keeps_flat_pictures(
    height: int, width: int, frame: tuple[int, int | None]
) -> None:
    resize, crop = frame
    image = np.full((height, width, 3), COLOUR, np.uint8)
    prepared = prepare(image, resize, crop, "bicubic")
    assert prepared.dtype == np.uint8
    assert prepared.shape == (crop or resize,) * 2 + (3,)
    assert prepared.flags.c_contiguous
    assert (prepared == COLOUR).all()


def test_crop_is_the_centre() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[4:36, 4:36] = 255
    assert (prepare(image, 40, 32, "bilinear") == 255).all()
    assert prepare(image, 40, 34, "bilinear").min() == 0


@given(height=sizes, width=sizes, frame=frames)
def test_restore_map_covers_what_was_seen_and_nothing_else(
    height: int, width: int, frame: tuple[int, int | None]
) -> None:
    resize, crop = frame
    size = crop or resize
    restored = restore_map(np.full((size, size), 7, np.float32), height, width, resize, crop)
    assert restored.dtype == np.float32
    assert restored.shape == (height, width)
    start = (resize - size) // 2
    for axis, edge in enumerate(restored.shape):
        centres = (np.arange(edge) + 0.5) * resize / edge
        seen = (centres >= start) & (centres < start + size)
        np.testing.assert_array_equal((restored == 7).any(axis=1 - axis), seen)
    assert set(np.unique(restored)) <= {0.0, 7.0}


@given(
    height=st.integers(40, 300),
    width=st.integers(40, 300),
    position=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    crop=st.sampled_from([None, 56]),
)
def test_what_prepare_moves_restore_map_puts_back(
    height: int, width: int, position: tuple[float, float], crop: int | None
) -> None:
    resize = 64
    image = np.zeros((height, width, 3), np.uint8)
    y, x = int(position[0] * height), int(position[1] * width)
    ry, rx = height // 32 + 1, width // 32 + 1
    image[y - ry : y + ry + 1, x - rx : x + rx + 1] = 255

    seen = prepare(image, resize, crop, "bicubic")[:, :, 0].astype(np.float32)
    restored = restore_map(seen, height, width, resize, crop)

    weights = restored / restored.sum()
    centre_y = weights.sum(axis=1) @ np.arange(height)
    centre_x = weights.sum(axis=0) @ np.arange(width)
    assert abs(centre_y - y) <= 0.5 + height / resize / 2
    assert abs(centre_x - x) <= 0.5 + width / resize / 2


def test_restore_map_of_a_peak() -> None:
    anomaly_map = np.zeros((224, 224), np.float32)
    anomaly_map[50, 100] = 1
    restored = restore_map(anomaly_map, 512, 1024, 256, 224)
    peak = np.array(np.unravel_index(restored.argmax(), restored.shape))
    np.testing.assert_allclose(peak, [(50 + 16.5) * 2 - 0.5, (100 + 16.5) * 4 - 0.5], atol=2)


def test_map_is_not_faded_along_the_crop() -> None:
    restored = restore_map(np.ones((32, 32), np.float32), 200, 200, 64, 32)
    assert restored[50:150, 50:150].min() == 1
    assert restored.sum() == 100 * 100


@given(height=sizes, width=sizes, frame=frames)
def test_prepare_mask_follows_prepare(
    height: int, width: int, frame: tuple[int, int | None]
) -> None:
    resize, crop = frame
    mask = np.zeros((height, width), np.bool_)
    mask[: height // 2] = True
    prepared = prepare_mask(mask, resize, crop)
    image = prepare(
        np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2), resize, crop, "bilinear"
    )
    assert prepared.dtype == np.bool_
    assert prepared.shape == image.shape[:2]
    certain = (image[:, :, 0] == 0) | (image[:, :, 0] == 255)
    np.testing.assert_array_equal(prepared[certain], image[:, :, 0][certain] > 127)
