"""Maps as 8-bit pictures: their scale, their size, and what is left out of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fapm import Detector
from fapm.inspection.rendering import SATURATION, render_map
from stripes import defective, fitted, good_pictures


def test_a_shade_stands_for_a_value_of_the_map() -> None:
    values = np.array([[0, 1, 2], [3, 4, 400]], np.float32)
    pixels, black, white = render_map(values, 2.0)
    assert (black, white) == (0.0, 4.0)
    assert pixels.dtype == np.uint8
    expected = np.clip(values.astype(np.float64) / white, 0, 1) * 255
    assert np.abs(pixels - expected).max() <= 0.5


@pytest.mark.parametrize("threshold", [0.0, 1e-38, 1e38])
def test_no_level_overflows(threshold: float) -> None:
    values = np.array([[0, 3e38]], np.float32)
    assert render_map(values, threshold).pixels.tolist() == [[0, 255]]


def test_without_a_threshold_white_is_the_largest_value() -> None:
    assert render_map(np.array([[0, 5]], np.float32), math.nan).white == 5
    flat = render_map(np.zeros((2, 2), np.float32), math.nan)
    assert flat.white > 0
    assert not flat.pixels.any()


def test_pictures_of_one_detector_share_their_scale(detector: Detector) -> None:
    for seed in (30, 31):
        prediction = detector.predict(defective(seed, 128, 96))
        shown = prediction.render_map()
        assert shown.pixels.shape == prediction.frame_map.shape
        assert shown.white == SATURATION * prediction.map_threshold
        assert shown.pixels.max() == round(255 * min(1, prediction.frame_map.max() / shown.white))


def test_outside_the_region_of_interest_all_is_black() -> None:
    held = fitted(good_pictures())
    left = np.zeros((64, 64), bool)
    left[:, :32] = True
    shown = held.restrict(roi=~left).predict(defective(30)).render_map()
    assert not shown.pixels[:, :28].any()
    assert shown.pixels[:, 40:].any()
