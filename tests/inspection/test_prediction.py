"""What a prediction holds: geometry, regions, what it was compared with."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray
from PIL import Image

from fapm import Detector, Prediction
from fapm.frames.layout import Layout
from framing import square
from stripes import (
    DEFECT,
    defective,
    fitted,
    good,
    good_pictures,
)

# What a prediction holds


@pytest.mark.parametrize(("height", "width"), [(48, 96), (200, 64), (37, 41)])
def test_maps_have_the_pictures_own_geometry(height: int, width: int) -> None:
    held = fitted([good(seed, height, width) for seed in range(8)])
    prediction = held.predict(defective(20, height, width))
    assert prediction.anomaly_map.shape == (height, width)
    assert prediction.anomaly_map.dtype == np.float32
    assert (prediction.height, prediction.width) == (height, width)
    y, x = np.unravel_index(prediction.anomaly_map.argmax(), (height, width))
    rows, columns = DEFECT
    # Within a coarse cell, 8 of 64 pixels, of the defect.
    assert rows.start - 8 <= y * 64 / height < rows.stop + 8
    assert columns.start - 8 <= x * 64 / width < columns.stop + 8


def test_regions_contain_the_defect(detector: Detector) -> None:
    prediction = detector.predict(defective(30))
    rows, columns = DEFECT
    y, x = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
    worst = prediction.regions[0]
    assert worst.x <= x < worst.x + worst.width
    assert worst.y <= y < worst.y + worst.height
    assert worst.peak == prediction.anomaly_map.max() > prediction.map_threshold


def test_a_good_part_has_no_regions(detector: Detector) -> None:
    quiet = [detector.predict(good(seed)) for seed in range(100, 106)]
    assert sum(len(p.regions) for p in quiet if p.verdict == "good") <= 1


def prediction_of(
    frame_map: NDArray[np.float32],
    threshold: float,
    size: tuple[int, int] | None = None,
    resize: int | None = None,
    roi: NDArray[np.bool_] | None = None,
) -> Prediction:
    """A prediction with this map of its frame, of a picture of the same size or another."""
    edge = len(frame_map)
    height, width = size or (edge, edge)
    return Prediction(
        source="array",
        score=1.0,
        percentile=50.0,
        verdict="good",
        threshold=2.0,
        map_threshold=threshold,
        frame_map=frame_map,
        height=height,
        width=width,
        layout=square(resize or edge, edge),
        comparison=None,  # type: ignore[arg-type]
        roi=roi,
    )


def blobs(seed: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(size=(64, 64))
    return scipy.ndimage.gaussian_filter(noise, 3).astype(np.float32)


def ring() -> NDArray[np.float32]:
    """A ring around an island: two regions, and one of them has a hole."""
    y, x = np.mgrid[:64, :64]
    distance = np.hypot(y - 32, x - 32)
    ring = np.where((distance > 15) & (distance < 25), 3.0, 0.0)
    return np.where(distance < 5, 5.0, ring).astype(np.float32)


@pytest.mark.parametrize("frame_map", [blobs(0), blobs(1), ring()], ids=["blobs", "more", "ring"])
def test_regions_are_the_connected_parts_above_the_threshold(
    frame_map: NDArray[np.float32],
) -> None:
    threshold = float(np.quantile(frame_map, 0.8)) if frame_map.max() < 1 else 1.0
    regions = prediction_of(frame_map, threshold).regions
    labels, count = scipy.ndimage.label(frame_map > threshold, structure=np.ones((3, 3)))
    expected = []
    for number, (rows, columns) in enumerate(scipy.ndimage.find_objects(labels), start=1):
        inside = labels == number
        box = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
        expected.append((-frame_map[inside].max(), *box, np.count_nonzero(inside)))
    assert count > 1
    assert [(-r.peak, r.x, r.y, r.width, r.height, r.area) for r in regions] == sorted(expected)


def bilinear(
    values: NDArray[np.float64], size: tuple[int, int], resize: int | None
) -> NDArray[np.float64]:
    """A map in a picture's own size, in float64; 0 where a centre crop of ``resize`` saw none."""
    edge = len(values)
    whole = resize or edge
    places = [(np.arange(n) + 0.5) * whole / n - 0.5 - (whole - edge) // 2 for n in size]
    grid = np.meshgrid(*places, indexing="ij")
    restored = scipy.ndimage.map_coordinates(values, grid, order=1, mode="nearest")
    seen = [(place >= -0.5) & (place < edge - 0.5) for place in grid]
    return np.where(seen[0] & seen[1], restored, 0)


@pytest.mark.parametrize(
    ("size", "resize", "drawn"),
    [
        ((64, 64), None, False),
        ((500, 333), None, False),
        ((40, 23), None, False),
        ((9, 300), None, True),
        ((411, 640), 80, False),
        ((411, 640), 81, True),
    ],
)
@pytest.mark.parametrize("share", [0.55, 0.9, 0.998])
def test_regions_in_a_pictures_own_size_are_those_of_its_whole_map(
    size: tuple[int, int], resize: int | None, drawn: bool, share: float
) -> None:
    frame_map = np.abs(blobs(7))
    threshold = float(np.quantile(frame_map, share))
    roi = blobs(8) > -0.05 if drawn else None
    prediction = prediction_of(frame_map, threshold, size, resize, roi)
    whole = bilinear(frame_map.astype(np.float64), size, resize)
    if roi is not None:
        whole[bilinear(roi.astype(np.float64), size, resize) < 0.5] = 0
    np.testing.assert_allclose(prediction.anomaly_map, whole, atol=1e-5)
    labels, count = scipy.ndimage.label(whole > threshold, structure=np.ones((3, 3)))
    regions = prediction.regions
    assert len(regions) == count
    unseen = set(range(1, count + 1))
    for region in regions:
        x, y = region.contour.T
        (number,) = set(labels[y, x].tolist())
        unseen.remove(number)
        inside = labels == number
        rows, columns = scipy.ndimage.find_objects(inside.astype(int))[0]
        assert (region.y, region.height) == (rows.start, rows.stop - rows.start)
        assert (region.x, region.width) == (columns.start, columns.stop - columns.start)
        assert region.area == np.count_nonzero(inside)
        assert region.peak == pytest.approx(whole[inside].max(), abs=1e-5)
    assert not unseen
    assert [-r.peak for r in regions] == sorted(-r.peak for r in regions)


def test_a_map_below_its_threshold_is_not_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = prediction_of(blobs(3), 1e3, (20_000, 20_000))

    def never(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Layout, "restore", never)
    assert quiet.regions == ()
    spot = np.zeros((64, 64), np.float32)
    spot[30, 40] = 2
    (region,) = prediction_of(spot, 1.0, (6_400, 6_400)).regions
    assert abs(region.x + region.width / 2 - 4050) <= 1
    assert abs(region.y + region.height / 2 - 3050) <= 1


def test_contours_lie_on_the_edge_of_their_regions() -> None:
    frame_map = blobs(2)
    threshold = float(np.quantile(frame_map, 0.9))
    above = frame_map > threshold
    within = scipy.ndimage.binary_erosion(above, np.ones((3, 3)), border_value=0)
    for region in prediction_of(frame_map, threshold).regions:
        x, y = region.contour.T
        assert above[y, x].all()
        assert not within[y, x].any()
        assert (x.min(), x.max() + 1 - x.min()) == (region.x, region.width)
        assert (y.min(), y.max() + 1 - y.min()) == (region.y, region.height)


def test_without_a_threshold_there_are_no_regions() -> None:
    assert prediction_of(blobs(3), math.nan).regions == ()


def test_a_comparison_names_a_training_picture_and_shows_it(folder: Path) -> None:
    held = fitted(folder)
    for seed in range(40, 45):
        comparison = held.predict(defective(seed)).comparison
        assert comparison.picture in held.fitted_.pictures
        assert comparison.layer in ("blocks.2", "blocks.4")
        assert comparison.distance > 0
        assert comparison.thumbnail is not None
        shown = np.asarray(Image.open(io.BytesIO(comparison.thumbnail))).astype(float)
        original = np.asarray(Image.open(folder / comparison.picture)).astype(float)
        assert shown.shape == original.shape
        assert np.abs(shown - original).mean() < 10  # it is that picture, but for JPEG


def test_a_comparison_is_with_the_key_that_the_farthest_layer_found(detector: Detector) -> None:
    spec = detector.fitted_.encoder.spec
    layers = set()
    for seed in range(200, 212):
        comparison = detector.predict(good(seed)).comparison
        scored = detector.engine_.run([good(seed)])  # 64 px already
        layer = int(scored.distances[0].argmax())
        bank = detector.fitted_.banks[layer]
        key = int(scored.keys[0, layer])
        y, x = divmod(int(bank.cells[key]), bank.width)
        assert comparison.layer == spec.layers[layer]
        assert comparison.distance == pytest.approx(float(scored.distances[0].max()), rel=1e-5)
        assert comparison.picture == detector.fitted_.pictures[int(bank.pictures[key])]
        there = x / bank.width, y / bank.height, 1 / bank.width, 1 / bank.height
        assert comparison.there == pytest.approx(there)
        layers.add(layer)
    assert layers == {0, 1}


def test_thumbnails_are_small_and_keep_the_pictures_shape() -> None:
    held = fitted([good(seed, 300, 200) for seed in range(3)])
    for thumbnail in held.fitted_.thumbnails.values():
        assert Image.open(io.BytesIO(thumbnail)).size == (107, 160)


def test_exactly_the_pictures_that_own_keys_have_thumbnails() -> None:
    held = fitted(good_pictures(40), grid=1, ratio=0.01)
    owners = {int(p) for bank in held.fitted_.banks for p in bank.pictures}
    assert set(held.fitted_.thumbnails) == owners
    assert len(owners) < 40


@pytest.mark.parametrize("overrides", [{}, {"crop": 48}], ids=["whole", "crop"])
def test_the_compared_cell_lies_at_the_defect(overrides: dict[str, Any]) -> None:
    held = fitted(good_pictures(), **overrides)
    here = held.predict(defective(50)).comparison.here
    rows, columns = DEFECT
    y, x = 64 * (here.y + here.height / 2), 64 * (here.x + here.width / 2)
    assert rows.start - 8 <= y <= rows.stop + 8
    assert columns.start - 8 <= x <= columns.stop + 8


def test_compared_cells_lie_in_the_same_patch_of_the_visible_picture() -> None:
    held = fitted(good_pictures(), crop=32, grid=2)
    for seed in range(60, 66):
        comparison = held.predict(good(seed)).comparison
        for box in (comparison.here, comparison.there):
            assert 0.25 <= box.x < box.x + box.width <= 0.75  # the crop of 32 in 64
            assert 0.25 <= box.y < box.y + box.height <= 0.75
        here, there = (
            (box.x + box.width / 2 > 0.5, box.y + box.height / 2 > 0.5)
            for box in (comparison.here, comparison.there)
        )
        assert here == there


def test_outside_a_centre_crop_nothing_is_found() -> None:
    held = fitted(good_pictures(), crop=32)
    corner = good(70)
    corner[:12, :12] = 255
    prediction = held.predict(corner)
    assert prediction.score == pytest.approx(held.score(good(70)), rel=1e-3)
    seen = np.zeros((64, 64), bool)
    seen[16:48, 16:48] = True
    assert (prediction.anomaly_map[~seen] == 0).all()
    assert (prediction.anomaly_map[seen] > 0).all()
