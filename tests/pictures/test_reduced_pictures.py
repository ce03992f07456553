"""JPEGs decoded at a part of their size: never below what is asked for, in their own geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fapm import Detector
from fapm.errors import ImageError
from fapm.pictures.codec import read_image, read_reduced
from fapm.pictures.resize import resize_image, whole_factor
from framing import prepare
from stripes import DEFECT, defective, good

ORIENTATION = 0x0112


def save(path: Path, height: int, width: int, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture = resize_image(good(0), height, width)
    Image.fromarray(picture).save(path, quality=95, exif=exif)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    height=st.integers(2, 300),
    width=st.integers(2, 300),
    edge=st.integers(1, 300),
    orientation=st.integers(1, 8),
)
def test_both_edges_keep_what_is_asked_for(
    height: int, width: int, edge: int, orientation: int, tmp_path: Path
) -> None:
    path = save(tmp_path / "part.jpg", height, width, orientation)
    whole = read_image(path)
    reduced, size = read_reduced(path, edge)
    assert size == whole.shape[:2]
    assert min(reduced.shape[:2]) >= min(edge, *size)
    divisor = max(n for n in (1, 2, 4, 8) if n == 1 or n * edge <= min(size))
    if divisor == 1 and whole_factor(size, (edge, edge)) == 2:  # an edge that is rounded up
        divisor = 2
    assert reduced.shape[:2] == tuple(-(-n // divisor) for n in size)


@given(st.integers(1, 5000), st.integers(1, 600), st.sampled_from([1, 2, 4, 8]))
def test_averaging_in_two_steps_is_averaging_in_one(have: int, want: int, first: int) -> None:
    factor = whole_factor((have, have), (want, want))
    if first <= factor:
        left = -(-have // first)
        assert first * whole_factor((left, left), (want, want)) == factor


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".bmp"])
def test_other_formats_are_decoded_whole(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"part{suffix}"
    Image.fromarray(good(0, 96, 128)).save(path)
    reduced, size = read_reduced(path, 16)
    assert size == (96, 128)
    np.testing.assert_array_equal(reduced, read_image(path))


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_frame_hardly_differs(orientation: int, tmp_path: Path) -> None:
    path = save(tmp_path / "part.jpg", 512, 640, orientation)
    frames = [
        prepare(picture, 64, None, "bicubic").astype(int)
        for picture in (read_image(path), read_reduced(path, 64)[0])
    ]
    assert np.abs(frames[0] - frames[1]).mean() < 1.5
    assert np.abs(frames[0] - frames[1]).max() < 16


def test_too_many_pixels_are_counted_before_reduction(tmp_path: Path) -> None:
    path = save(tmp_path / "part.jpg", 64, 64)
    with pytest.raises(ImageError, match=r"64 x 64 is 4,096 pixels, the limit is 4,000"):
        read_reduced(path, 8, max_pixels=4_000)


def test_a_large_jpeg_gets_its_map_in_its_own_size(detector: Detector, tmp_path: Path) -> None:
    picture = resize_image(defective(5), 640, 512)
    Image.fromarray(picture).save(tmp_path / "part.jpg", quality=95)
    found = detector.predict(tmp_path / "part.jpg")
    assert found.anomaly_map.shape == (640, 512)
    row, column = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
    assert 10 * DEFECT[0].start <= row < 10 * DEFECT[0].stop
    assert 8 * DEFECT[1].start <= column < 8 * DEFECT[1].stop
