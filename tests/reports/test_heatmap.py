"""One colour scale for every picture: quiet when good, clear at the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fapm.inspection.prediction import Box
from fapm.pictures.codec import encode_jpeg
from fapm.reports.heatmap import (
    THUMBNAIL_EDGE,
    crop_around,
    decode_jpeg,
    draw_mask_contour,
    overlay,
    thumbnails,
)

NAN = float("nan")
GREY = np.full((40, 60, 3), 128, np.uint8)


def flat(value: float) -> NDArray[np.float32]:
    return np.full(GREY.shape[:2], value, np.float32)


def test_same_value_same_colour_whatever_else_is_in_the_picture() -> None:
    mild, wild = flat(1.4), flat(1.4)
    wild[:, 30:] = 50.0
    left = np.s_[5:35, 5:25]
    np.testing.assert_array_equal(overlay(GREY, mild, 1.0)[left], overlay(GREY, wild, 1.0)[left])


def test_quiet_up_to_half_the_threshold() -> None:
    for level in (0.0, 0.3, 0.5):
        np.testing.assert_array_equal(overlay(GREY, flat(level), 1.0), GREY)


def test_clear_at_the_threshold_and_saturated_at_twice_the_threshold() -> None:
    def change(level: float) -> float:
        painted = overlay(GREY, flat(level), 3.0)[20, 30].astype(float)
        return float(np.abs(painted - GREY[20, 30]).max())

    assert change(2.1) < 15 < 40 < change(3.0)
    np.testing.assert_array_equal(
        overlay(GREY, flat(6.0), 3.0)[5:-5, 5:-5], overlay(GREY, flat(1e30), 3.0)[5:-5, 5:-5]
    )


def test_ramp_brightens_steadily_above_the_threshold() -> None:
    level = np.tile(np.linspace(1.05, 2, 60, dtype=np.float32), (40, 1))
    grey_print = overlay(GREY, level, 1.0)[20, 2:-2] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(grey_print) > -1).all()
    assert grey_print[-1] > grey_print[0] + 40


def test_contour_only_around_what_is_above_the_threshold() -> None:
    spot = flat(0.0)
    spot[10:20, 10:20] = 1.2
    white = (overlay(GREY, spot, 1.0) == 255).all(axis=2)
    assert white[10, 10]
    assert white[19, 15]
    assert not white[15, 15]
    assert not white[:10].any()
    assert not (overlay(GREY, spot, 1.3) == 255).all(axis=2).any()


def test_unknown_threshold_scales_to_the_maps_own_maximum() -> None:
    ramp = np.tile(np.linspace(0, 7, 60, dtype=np.float32), (40, 1))
    unknown, known = overlay(GREY, ramp, NAN), overlay(GREY, ramp, 3.5)
    np.testing.assert_array_equal(unknown[:, :28], known[:, :28])
    assert not (unknown == 255).all(axis=2).any()


@pytest.mark.parametrize("threshold", [NAN, 0.0, 1.0])
def test_empty_map_paints_nothing(threshold: float) -> None:
    np.testing.assert_array_equal(overlay(GREY, flat(0.0), threshold), GREY)


def test_pictures_are_left_alone() -> None:
    image, mask = GREY.copy(), flat(1.0) > 0
    overlay(image, flat(9.0), 1.0)
    draw_mask_contour(image, mask)
    np.testing.assert_array_equal(image, GREY)


def test_mask_contour_is_thin_and_not_the_colour_of_the_map() -> None:
    mask = np.zeros(GREY.shape[:2], bool)
    mask[10:30, 10:30] = True
    drawn = (draw_mask_contour(GREY, mask) != GREY).any(axis=2)
    assert drawn.sum() == 4 * 19
    assert not drawn[15:25, 15:25].any()


def test_jpeg_is_deterministic_and_keeps_thin_colour() -> None:
    mask = np.zeros(GREY.shape[:2], bool)
    mask[10:30, 10:30] = True
    drawn = draw_mask_contour(GREY, mask)
    data = encode_jpeg(drawn, 80)
    assert data == encode_jpeg(drawn.copy(), 80)
    assert np.abs(decode_jpeg(data).astype(int) - drawn)[10, 12:28].max() < 60


def test_thumbnails_keep_small_defects_and_do_not_enlarge() -> None:
    image = np.zeros((600, 1200, 3), np.uint8)
    mask = np.zeros((600, 1200), bool)
    mask[301, 700] = True
    small, small_map, small_mask = thumbnails(image, np.ones((600, 1200), np.float32), mask)
    assert small.shape == (128, THUMBNAIL_EDGE, 3)
    assert small_map.shape == (128, 256)
    assert small_map.dtype == np.float32
    assert small_mask is not None
    assert small_mask.any()
    same, _, no_mask = thumbnails(GREY, flat(1.0), None)
    np.testing.assert_array_equal(same, GREY)
    assert no_mask is None


@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    x=st.floats(0, 0.97),
    y=st.floats(0, 0.97),
    size=st.floats(0.001, 1),
)
def test_crop_stays_in_the_picture(
    height: int, width: int, x: float, y: float, size: float
) -> None:
    image = np.full((height, width, 3), 90, np.uint8)
    crop = crop_around(image, Box(x, y, min(size, 1 - x), min(size, 1 - y)))
    assert crop.shape == (128, 128, 3)
    assert crop.dtype == np.uint8


def test_crop_shows_the_cell() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[40:50, 70:80] = (200, 0, 0)
    crop = crop_around(image, Box(0.7, 0.4, 0.1, 0.1))
    reds = np.argwhere(crop[..., 0].astype(int) - crop[..., 1] > 100)
    np.testing.assert_allclose(reds.mean(axis=0), 63.5, atol=3)
