"""Large pictures cut into tiles, and frames that keep their aspect ratio."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fapm
import reference
from conftest import Command, Refusal, run_process
from fapm.config import Config
from fapm.detector import Detector
from fapm.encoder.weights import create_encoder
from fapm.engines import openvino_engine as openvino
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder, open_engine
from fapm.errors import ConfigError
from fapm.fitting.audit import Audit, audit
from fapm.frames.layout import Axis, Layout, layout_of
from fapm.graph.whole import whole_model
from fapm.memory.geometry import patch_of_cell
from fapm.pictures import codec
from fapm.pictures.resize import resize_image
from fapm.pictures.sizes import usual_size
from framing import read_frame

Picture = NDArray[np.uint8]
ENGINES = ("openvino", "torch", "onnxruntime")
TILED: dict[str, Any] = {"tile": 64, "overlap": 16}


def scene(seed: int, height: int = 144, width: int = 200) -> Picture:
    """A part whose every place looks different, under its own noise."""
    y, x = np.mgrid[:height, :width]
    base = 110 + 40 * np.sin(x * x / 900) + 40 * np.cos(y * (1 + y / 200) / 7)
    noise = np.random.default_rng(seed).normal(scale=6, size=(height, width, 3))
    return np.clip(base[:, :, None] + noise, 0, 255).astype(np.uint8)


def spotted(seed: int, y: int, x: int, size: int = 6, **shape: int) -> Picture:
    picture = scene(seed, **shape)
    window = picture[y : y + size, x : x + size]
    window[:] = 255 if window.mean() < 128 else 0
    return picture


def scenes(count: int = 6, **shape: int) -> list[Picture]:
    return [scene(seed, **shape) for seed in range(count)]


@pytest.fixture(scope="module")
def tiled() -> Detector:
    return fapm.fit(scenes(10), **TILED)


# Layouts


@settings(deadline=None)
@given(
    pixels=st.integers(32, 3000),
    tile=st.integers(32, 512),
    overlap=st.integers(0, 256),
    cells=st.integers(1, 9),
    sigma=st.sampled_from([0.0, 3.0]),
)
def test_tiles_cover_the_edge_and_no_more_than_they_must(
    pixels: int, tile: int, overlap: int, cells: int, sigma: float
) -> None:
    tile, overlap = min(tile, pixels), min(overlap, min(tile, pixels) // 2)
    axis = Axis.cut(pixels, tile, overlap)
    starts = np.array(axis.starts)
    assert starts[0] == 0
    assert starts[-1] == pixels - tile
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert steps.max(initial=0) <= tile - overlap + 0.5  # rounded to pixels
    if len(starts) > 1:  # one tile less would overlap by less
        assert (len(starts) - 2) * (tile - overlap) < pixels - tile

    count = cells * len(starts)
    weights = axis.smoothing(count, sigma)
    assert weights.shape == (axis.shown, count)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    covered = axis.coverage(count)
    np.testing.assert_allclose(covered.sum(axis=1), 1)
    assert (covered.sum(axis=0) > 0).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(64, 600), st.integers(32, 128), st.integers(0, 64))
def test_seams_are_invisible(pixels: int, tile: int, overlap: int) -> None:
    """What every tile tells alike is told once: a slope stays a slope across all borders."""
    tile, overlap = min(tile, pixels), min(overlap, tile // 2)
    overlap = max(overlap, tile // 4)
    axis, cells = Axis.cut(pixels, tile, overlap), 8
    bounds = [axis.bounds(i, cells * len(axis.starts)) for i in range(cells * len(axis.starts))]
    slope = np.array([start + extent / 2 for start, extent in bounds])  # 0 .. 1 along the edge
    shown = axis.smoothing(len(slope), 0) @ slope
    places = (np.arange(axis.shown) + 0.5) / axis.shown
    cell = tile / cells / pixels
    assert np.abs(shown - places).max() <= cell / 2 + 1e-9  # flat in the outer half of a cell
    assert (np.diff(shown) > -1e-9).all()
    assert np.diff(shown).max(initial=0) <= 2.5 / axis.shown


def test_a_patch_never_has_cells_of_two_tiles() -> None:
    for cells, patches in ((28, 7), (8, 7), (32, 7), (5, 7), (9, 2)):
        layout = Layout(Axis.cut(500, 224, 28), Axis.cut(700, 224, 28), (500, 700))
        height, width = layout.side_by_side((cells, cells))
        numbers = patch_of_cell(height, width, layout.grid(patches))
        alone = patch_of_cell(cells, cells, patches)
        rows, columns = layout.tiling
        blocks = numbers.reshape(rows, cells, columns, cells).transpose(0, 2, 1, 3)
        seen: set[int] = set()
        for block in blocks.reshape(-1, cells, cells):
            _, ranks = np.unique(block, return_inverse=True)
            np.testing.assert_array_equal(ranks.reshape(cells, cells), alone)
            assert not seen & set(block.ravel().tolist())
            seen |= set(block.ravel().tolist())


def test_a_strip_keeps_its_aspect_ratio() -> None:
    layout = layout_of(Config.create(keep_aspect=True), (1250, 500))
    assert layout.shape == (560, 224)
    assert layout.tiles == 1
    assert layout.grid(7) == (18, 7)
    assert layout_of(Config.create(keep_aspect=True), (500, 500)).shape == (224, 224)


def test_a_large_frame_is_cut_into_the_tiles_asked_for() -> None:
    layout = layout_of(Config.create(tile=512, overlap=64), (3000, 4000))
    assert (layout.shape, layout.tile_shape, layout.tiling) == ((3000, 4000), (512, 512), (7, 9))
    assert layout.map_shape == (750, 1000)
    half = layout_of(Config.create(tile=512, overlap=64, tile_scale=0.5), (3000, 4000))
    assert (half.shape, half.tiling) == ((1500, 2000), (4, 5))
    assert layout_of(Config.create(tile=512, overlap=64), (512, 512)).tiles == 1


# Against the reference


def cut(picture: Picture, layout: Layout) -> list[Picture]:
    height, width = layout.tile_shape
    return [
        picture[top : top + height, left : left + width]
        for top in layout.rows.starts
        for left in layout.columns.starts
    ]


def blended(tiles: NDArray[np.float64], layout: Layout, sigma: float) -> NDArray[np.float64]:
    """The map of tiles' distances ``[T, H, W]``: each by how far the place is from its border."""
    size, shown = layout.shape, layout.map_shape
    total, weight = np.zeros(shown), np.zeros(shown)
    places = [(np.arange(n) + 0.5) * pixels / n for n, pixels in zip(shown, size, strict=True)]
    corners = [(top, left) for top in layout.rows.starts for left in layout.columns.starts]
    for cells, corner in zip(tiles, corners, strict=True):
        inside, depths = [], []
        for axis in (0, 1):
            local = places[axis] - corner[axis]
            depths.append(np.minimum(local, layout.tile_shape[axis] - local).clip(0))
            inside.append(local * cells.shape[axis] / layout.tile_shape[axis] - 0.5)
        grid = np.meshgrid(*inside, indexing="ij")
        value = scipy.ndimage.map_coordinates(cells, grid, order=1, mode="nearest")
        depth = np.outer(*depths)
        total += depth * value
        weight += depth
    scaled = [sigma * n / pixels for n, pixels in zip(shown, size, strict=True)]
    return np.asarray(scipy.ndimage.gaussian_filter(total / weight, scaled))


@pytest.mark.parametrize("knobs", [{}, {"neighbours": 3, "score_sigma": 1.0}])
def test_each_tile_is_judged_by_a_memory_of_its_own(knobs: dict[str, Any]) -> None:
    """The rules, tile by tile, in float64: as many detectors as there are tiles, and one map."""
    config = Config.create(
        **TILED, grid=3, ratio=0.2, sampling="none", distance_unit="one", **knobs
    )
    pictures, asked = scenes(5), [scene(9), spotted(10, 70, 120)]
    detector = Detector(config).fit(pictures)
    fitted = detector.fitted_
    layout = fitted.layout
    assert layout.tiling == (3, 4)
    encoder = open_encoder(fitted.encoder, Runtime())

    def features(given: list[Picture], tile: int) -> list[NDArray[np.float64]]:
        tiles = [np.ascontiguousarray(cut(picture, layout)[tile]) for picture in given]
        return [
            reference.average_pool(layer.astype(np.float64)) for layer in encoder.features(tiles)
        ]

    judged = []
    for tile in range(layout.tiles):
        memories = [
            reference.memorise(
                layer,
                grid=3,
                ratio=0.2,
                sampling="none",
                distance_unit="one",
                far_threshold=0.5,
            )
            for layer in features(pictures, tile)
        ]
        judged.append(
            reference.judge(
                features(asked, tile),
                memories,
                count=config.neighbours,
                size=64,
                sigma=0,
                score_sigma=config.score_sigma,
            )
        )
    assert sum(len(bank.keys) for bank in fitted.banks) > 0
    for number, prediction in enumerate(detector.predict(asked)):
        levels = np.stack([one.unified[number, ..., 0] for one in judged])  # [T, H, W]
        if config.neighbours == 1:
            expected = max(one.scores[number] for one in judged)
        else:  # the worst cell of all tiles is weighted, not the best weighted score taken
            smoothed = np.stack(
                [scipy.ndimage.gaussian_filter(tile, config.score_sigma) for tile in levels]
            )
            tile, cell = np.unravel_index(
                smoothed.reshape(len(levels), -1).argmax(), (len(levels), levels[0].size)
            )
            ranks = judged[tile].unified[number].reshape(-1, config.neighbours)[cell]
            weight = 1 - reference.softmax(ranks).max()
            expected = weight * smoothed[tile].ravel()[cell]
        assert prediction.score == pytest.approx(expected, rel=1e-4)
        shown = blended(levels, layout, config.sigma)
        np.testing.assert_allclose(prediction.frame_map, shown, rtol=1e-3, atol=1e-3 * shown.max())


def test_a_frame_that_keeps_its_aspect_ratio_follows_the_rules() -> None:
    config = Config.create(keep_aspect=True, resize=64, grid=3, sampling="none", ratio=0.2)
    pictures, asked = scenes(5), [scene(9), spotted(10, 70, 120)]
    detector = Detector(config).fit(pictures)
    fitted, layout = detector.fitted_, detector.fitted_.layout
    assert layout.shape == (64, 96)
    runner = open_encoder(fitted.encoder, Runtime())

    def features(given: list[Picture]) -> list[NDArray[np.float64]]:
        frames = [resize_image(p, 64, 96, fitted.encoder.spec.interpolation) for p in given]
        return [
            reference.average_pool(layer.astype(np.float64)) for layer in runner.features(frames)
        ]

    memories = [
        reference.memorise(
            layer,
            grid=(3, round(3 * 96 / 64)),
            ratio=0.2,
            sampling="none",
            distance_unit="median-radius",
            far_threshold=0.5,
        )
        for layer in features(pictures)
    ]
    expected = reference.judge(
        features(asked), memories, count=1, size=(64, 96), sigma=config.map_sigma
    )
    for number, prediction in enumerate(detector.predict(asked)):
        assert prediction.score == pytest.approx(expected.scores[number], rel=1e-4)
        shown = expected.maps[number]
        np.testing.assert_allclose(prediction.frame_map, shown, rtol=1e-3, atol=1e-3 * shown.max())


def test_squares_that_keep_their_aspect_ratio_are_squares() -> None:
    pictures = scenes(height=96, width=96)
    plain, kept = (fapm.fit(pictures, resize=64, keep_aspect=keep) for keep in (False, True))
    for one, other in zip(plain.fitted_.banks, kept.fitted_.banks, strict=True):
        np.testing.assert_array_equal(one.keys, other.keys)
    assert plain.score(spotted(9, 50, 40, height=96, width=96)) == kept.score(
        spotted(9, 50, 40, height=96, width=96)
    )


def test_one_tile_that_covers_the_picture_is_a_picture() -> None:
    pictures = scenes(height=96, width=96)
    plain, one = fapm.fit(pictures, resize=96, sigma=4.0 * 224 / 96), fapm.fit(pictures, tile=96)
    assert one.fitted_.layout.tiles == 1
    asked = spotted(9, 50, 40, height=96, width=96)
    assert plain.score(asked) == pytest.approx(one.score(asked), rel=1e-6)
    expected = plain.predict(asked).anomaly_map
    shown = one.predict(asked).anomaly_map
    np.testing.assert_allclose(shown, expected, atol=0.02 * expected.max())


# As it is used


@pytest.mark.parametrize(("y", "x"), [(4, 4), (130, 190), (60, 100), (44, 58)])
def test_a_small_defect_is_found_where_it_is(tiled: Detector, y: int, x: int) -> None:
    good = max(tiled.score(scene(seed)) for seed in range(20, 24))
    found = tiled.predict(spotted(30, y, x))
    assert found.score > 1.3 * good
    assert found.anomaly_map.shape == (144, 200)
    peak = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
    assert np.abs(np.array(peak) - (y + 3, x + 3)).max() <= 10
    here = found.comparison.here
    assert here.x - 0.08 <= (x + 3) / 200 <= here.x + here.width + 0.08
    assert here.y - 0.08 <= (y + 3) / 144 <= here.y + here.height + 0.08


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("knobs", [{}, {"radius": 1, "neighbours": 3}, {"layer_wise": False}])
def test_engines_and_bundles_say_the_same(
    knobs: dict[str, Any], precision: str, tmp_path: Path
) -> None:
    detector = fapm.fit(scenes(10), **TILED, grid=4, precision=precision, **knobs)
    detector.save(tmp_path / "part.fapm")
    asked = [scene(9), spotted(10, 70, 120)]
    expected = detector.predict(asked)
    for engine in ENGINES if precision == "fp32" else ("openvino",):
        loaded = fapm.load(tmp_path / "part.fapm", runtime=Runtime(engine=engine))  # type: ignore[arg-type]
        for one, other in zip(loaded.predict(asked), expected, strict=True):
            assert one.score == pytest.approx(other.score, rel=1e-3)
            np.testing.assert_allclose(one.frame_map, other.frame_map, atol=2e-2)
            assert one.verdict == other.verdict


def test_another_fit_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.fapm", "two.fapm"):
        fapm.fit(scenes(), **TILED, grid=2).save(tmp_path / name)
    assert (tmp_path / "one.fapm").read_bytes() == (tmp_path / "two.fapm").read_bytes()


def test_tiles_share_the_keys_of_a_whole_picture() -> None:
    """A frame of twelve tiles is memorised from a twelfth of the pictures that count."""
    pictures = scenes(10)
    plain: dict[str, Any] = {"grid": 2, "sampling": "none"}
    few = fapm.fit(pictures, **TILED, **plain, budget_pictures=36)
    many = fapm.fit(pictures, **TILED, **plain, budget_pictures=72)
    assert few.fitted_.layout.tiles == 12
    keys = [sum(len(bank.keys) for bank in d.fitted_.banks) for d in (few, many)]
    assert keys[1] == pytest.approx(2 * keys[0], rel=0.15)


def test_update_and_forget_know_tiles(tmp_path: Path) -> None:
    detector = fapm.fit(scenes(8), **TILED)
    odd = spotted(40, 60, 100, size=9)
    before = detector.score(odd)
    detector.update([odd])
    assert detector.score(odd) < 0.5 * before
    detector.save(tmp_path / "part.fapm")
    again = fapm.load(tmp_path / "part.fapm")
    assert again.score(odd) == detector.score(odd)
    assert again.forget("array 0 (2)").score(odd) > 0.5 * before


def test_what_is_outside_a_region_cannot_raise_a_score() -> None:
    region = np.zeros((144, 200), np.bool_)
    region[:, :100] = True
    detector = fapm.fit(scenes(10), **TILED)
    looking = detector.restrict(roi=region)
    inside, outside = spotted(30, 70, 40), spotted(30, 70, 170)
    good = max(looking.score(scene(seed)) for seed in range(20, 24))
    assert looking.score(outside) <= 1.1 * good < looking.score(inside)
    assert detector.score(outside) > 1.3 * good
    shown = looking.predict(outside).anomaly_map
    assert (shown[:, 110:] == 0).all()

    fitted = Detector(Config.create(**TILED)).fit(scenes(10), roi=region)
    assert fitted.score(inside) == pytest.approx(looking.score(inside), rel=0.5)
    engine = open_engine(fitted.fitted_, Runtime(engine="torch"))
    assert float(engine.run([inside]).scores[0]) == pytest.approx(fitted.score(inside), rel=1e-3)


def test_tiles_outside_a_region_are_not_encoded() -> None:
    region = np.zeros((144, 200), np.bool_)
    region[:60, :60] = True
    looking = fapm.fit(scenes(10), **TILED).restrict(roi=region).fitted_
    assert looking.layout.tiles == 12
    assert np.flatnonzero(looking.inspected_tiles).tolist() == [0, 1, 4, 5]
    encoder = openvino.read_frame_encoder(looking)
    assert [output.shape[0] for output in encoder.outputs] == [4, 4]
    whole = whole_model(looking)
    (cut,) = [node for node in whole.graph.node if list(node.output) == ["tiles"]]
    assert len(cut.input) == 4
    (asked,) = [spotted(30, 20, 20)]
    scores = [
        float(open_engine(looking, Runtime(engine=engine)).run([asked]).scores[0])
        for engine in ENGINES
    ]
    np.testing.assert_allclose(scores, scores[0], rtol=1e-3)


def test_pictures_of_another_shape_are_reported_and_others_go_on(tiled: Detector) -> None:
    results = list(tiled.stream([scene(1), scene(1, height=170), scene(1, 288, 400)]))
    assert isinstance(results[0], fapm.Prediction)
    assert isinstance(results[2], fapm.Prediction)
    assert results[2].anomaly_map.shape == (288, 400)
    assert isinstance(results[1], fapm.Failure)
    assert results[1].error == (
        "array 1: 200 x 170 pixels, but the detector is for pictures of 200 x 144; they may be "
        "larger or smaller, but not of another shape"
    )


def test_the_commonest_shape_counts_and_others_are_left_out() -> None:
    detector = fapm.fit([scene(0, height=100), *scenes()], **TILED, grid=2)
    assert detector.fitted_.layout.picture == (144, 200)
    assert [failure.source for failure in detector.fitted_.skipped] == ["array 0"]


def test_pictures_of_many_shapes_have_no_frame() -> None:
    shapes = [scene(seed, height=round(80 * 1.15**seed)) for seed in range(6)]
    with pytest.raises(ConfigError, match=r"many shapes \(1 of 6 like the commonest, 200 x 1"):
        fapm.fit(shapes, keep_aspect=True)


@pytest.mark.parametrize("knobs", [{"keep_aspect": True, "resize": 64}, {"tile": 64}])
def test_strips_of_nearly_one_shape_are_all_taken(knobs: dict[str, Any]) -> None:
    heights = [140, 131, 144, 144, 149, 137, 152]
    detector = fapm.fit([scene(i, height=h) for i, h in enumerate(heights)], grid=2, **knobs)
    held = detector.fitted_
    assert (held.layout.picture, held.skipped) == ((144, 200), ())
    (said,) = [remark for remark in held.remarks if "another shape" in remark]
    assert said == (
        "5 of 7 pictures are of another shape than 200 x 144 pixels, by up to 9.9 %, and are "
        "resized to it"
    )
    narrow, wide, other = detector.stream(
        [spotted(9, 46, 80, 40, height=132), scene(9, height=156), scene(9, height=170)]
    )
    assert isinstance(narrow, fapm.Prediction)
    assert isinstance(wide, fapm.Prediction)
    assert narrow.anomaly_map.shape == (132, 200)
    assert narrow.score > wide.score
    y, x = np.unravel_index(narrow.anomaly_map.argmax(), (132, 200))
    assert abs(y - 66) <= 30
    assert abs(x - 100) <= 30
    assert isinstance(other, fapm.Failure)


def test_the_usual_size_is_near_most_pictures_and_in_their_middle() -> None:
    strips = [(500, length) for length in range(1235, 1286, 5)]
    assert usual_size(strips) == (500, 1260)
    assert usual_size([*strips, (500, 1285)]) == (500, 1285)
    # The commonest size is not that of the usual shape.
    assert usual_size([(300, 900)] * 3 + strips) == (500, 1260)
    assert usual_size([]) is None


def test_many_pictures_that_are_left_out_make_one_line() -> None:
    odd = [scene(seed, height=100) for seed in range(6)]
    few, many = (fapm.fit([*scenes(8), *odd[:n]], **TILED, grid=2) for n in (5, 6))
    assert len([note for note in few.notes_ if note.startswith("left out of fit: ")]) == 5
    (line,) = [note for note in many.notes_ if note.startswith("left out of fit: ")]
    assert line.startswith(
        "left out of fit: 6 pictures, which fapm info --json lists; the first: array 8: 200 x 100 "
    )
    assert len(many.fitted_.skipped) == 6


def test_tiles_larger_than_the_pictures() -> None:
    with pytest.raises(ConfigError) as caught:
        fapm.fit(scenes(), tile=160)
    assert str(caught.value) == (
        "tile: 160 is larger than the pictures of 200 x 144 pixels; use at most 144, or leave it "
        "out"
    )
    with pytest.raises(ConfigError, match=r"\(scaled by 0.25\)"):
        fapm.fit(scenes(), tile=64, tile_scale=0.25)
    with pytest.raises(ConfigError, match=r"make 4,725 tiles of 32, more than 4,096"):
        layout_of(Config.create(tile=32, overlap=0, tile_scale=4), (500, 600))


PLANTED = {3: spotted(3, 50, 60, 14), 8: spotted(8, 100, 150, 14)}
# Away from the border, with both planted defects inside.
CENTRE = np.zeros((144, 200), np.bool_)
CENTRE[40:120, 50:170] = True
FRAMES: dict[str, dict[str, Any]] = {
    "tiles": TILED,
    "oblong": {"keep_aspect": True, "resize": 96},
    "square": {"resize": 96},
}


@pytest.mark.parametrize("region", [None, CENTRE], ids=["everything", "region"])
@pytest.mark.parametrize("frames", FRAMES)
def test_robust_leaves_out_planted_defects(frames: str, region: NDArray[np.bool_] | None) -> None:
    pictures = scenes(14)
    for number, defective in PLANTED.items():
        pictures[number] = defective
    detector = Detector(Config.create(**FRAMES[frames], robust=True)).fit(pictures, roi=region)
    held = detector.fitted_
    left_out = {failure.source for failure in held.skipped}
    assert {f"array {number}" for number in PLANTED} <= left_out
    assert len(left_out) <= 3
    assert not left_out & set(held.pictures)
    good, bad = detector.predict([scene(40), spotted(40, 50, 60, 14)])
    assert (good.verdict, bad.verdict) == ("good", "defect")


def test_robust_is_not_about_what_is_outside_the_region() -> None:
    right = np.zeros((144, 200), np.bool_)
    right[:, 140:] = True  # no tile shows both this and the defect
    clean, dirty = scenes(10), scenes(10)
    dirty[5] = spotted(5, 60, 10, 14)
    expected, held = (
        Detector(Config.create(**TILED, robust=True)).fit(pictures, roi=right).fitted_
        for pictures in (clean, dirty)
    )
    assert held.pictures == expected.pictures
    np.testing.assert_array_equal(held.calibration.scores, expected.calibration.scores)


def plates(count: int) -> list[Picture]:
    """Bright plates on a plain ground."""
    pictures = [np.full((144, 200, 3), 30, np.uint8) for _ in range(count)]
    for seed, picture in enumerate(pictures):
        picture[40:110, 60:150] = scene(seed)[40:110, 60:150] // 2 + 110
        picture += np.random.default_rng(seed).integers(0, 6, picture.shape, np.uint8)
    return pictures


def test_the_foreground_is_learned_from_whole_pictures_that_are_cut() -> None:
    detector = Detector(Config.create(**TILED)).fit(plates(8), roi="auto")
    roi = detector.fitted_.frame_roi
    assert roi is not None
    assert roi.shape == (144, 200)
    assert roi[40:110, 60:150].mean() > 0.98
    assert not roi[:20].any()
    assert not roi[:, :40].any()
    assert not roi[-20:].any()
    assert not roi[:, -40:].any()
    away, on_it = plates(10)[8:]
    away[4:14, 4:14], on_it[60:74, 80:94] = 255, 0
    ignored, found = detector.predict([away, on_it])
    assert ignored.verdict != "defect"
    assert found.verdict == "defect"


@pytest.mark.parametrize("frames", FRAMES)
def test_the_audit_marks_the_right_place(frames: str) -> None:
    pictures = scenes(12)
    pictures[7] = spotted(7, 100, 150, 14)
    found = audit(pictures, Config.create(**FRAMES[frames]), Runtime())
    assert found.order[0] == 7
    assert found.found.outlying[7]
    marked = found.anomaly_map(7)
    assert marked.shape == (144, 200)
    y, x = np.unravel_index(marked.argmax(), marked.shape)
    assert abs(y - 107) <= 10
    assert abs(x - 157) <= 10
    assert marked.max() > found.map_level
    left, top, width, height = box_of(found, 7)
    assert left - 0.05 <= 157 / 200 <= left + width + 0.05
    assert top - 0.05 <= 107 / 144 <= top + height + 0.05


def box_of(found: Audit, number: int) -> tuple[float, ...]:
    """Where the most unusual cell of a picture lies, as its report says."""
    cells = found.found.cells[number]
    traces = found.frames[number].traces
    return found.preparation.place(int(cells.argmax()), (len(cells), cells.shape[1]), traces)


@pytest.mark.parametrize("shape", [(64, 112), (112, 64)], ids=["wide", "tall"])
def test_turned_copies_of_frames_that_are_not_square(shape: tuple[int, int]) -> None:
    """Half a turn fits the frame, and the memory knows the part the other way round."""
    good = [scene(seed, *shape) for seed in range(6)]
    turned = np.ascontiguousarray(np.rot90(scene(20, *shape), 2))
    plain, both = (
        Detector(Config.create(keep_aspect=True, resize=64, rotations=n)).fit(good) for n in (1, 2)
    )
    assert both.score(turned) < 0.6 * plain.score(turned)
    assert both.predict(turned).anomaly_map.shape == shape


@pytest.mark.parametrize(
    "knobs",
    [
        {"keep_aspect": True, "resize": 64, "augment": 1},
        {"keep_aspect": True, "resize": 64, "robust": True},
        {"keep_aspect": True, "resize": 64, "light": "gain"},
        {"tile": 64, "augment": 1},
        {"tile": 64, "light": "gain"},
    ],
    ids=lambda knobs: "-".join(knobs),
)
@pytest.mark.parametrize("shape", [(64, 112), (112, 64)], ids=["wide", "tall"])
def test_frames_that_are_not_square_go_with(knobs: dict[str, Any], shape: tuple[int, int]) -> None:
    detector = fapm.fit([scene(seed, *shape) for seed in range(8)], grid=2, **knobs)
    assert detector.predict(scene(9, *shape)).anomaly_map.shape == shape


@pytest.mark.parametrize("shape", [(60, 120), (120, 60)], ids=["wide", "tall"])
def test_the_foreground_of_frames_that_are_not_square(shape: tuple[int, int]) -> None:
    pictures = [np.full((*shape, 3), 30, np.uint8) for _ in range(6)]
    for seed, picture in enumerate(pictures):
        picture += np.random.default_rng(seed).integers(0, 8, picture.shape, np.uint8)
        picture[shape[0] // 3 : 2 * shape[0] // 3, shape[1] // 3 : 2 * shape[1] // 3] += 150
    detector = fapm.fit(pictures, keep_aspect=True, resize=64, roi="auto")
    roi = detector.fitted_.frame_roi
    assert roi is not None
    assert roi.shape == detector.fitted_.layout.shape
    assert roi[roi.shape[0] // 2, roi.shape[1] // 2]
    assert not roi[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    margin = 0.05 * min(roi.shape)
    rows, columns = roi.any(axis=1).nonzero()[0], roi.any(axis=0).nonzero()[0]
    for found, edge in ((rows, roi.shape[0]), (columns, roi.shape[1])):
        assert abs(len(found) - (edge / 3 + 2 * margin)) <= 4
    assert detector.predict(pictures[0]).anomaly_map.shape == shape


def test_frames_are_read_as_they_are(tmp_path: Path) -> None:
    picture = scene(3)
    config = Config.create(**TILED)
    layout = layout_of(config, (144, 200))
    frame = read_frame(picture, config, "bicubic", max_pixels=10**6, layout=layout)
    assert not isinstance(frame, fapm.Failure)
    np.testing.assert_array_equal(frame.pixels, picture)
    encoder = create_encoder(config, layout.tile_shape)
    assert encoder.spec.input_size == (64, 64)


def save_all(pictures: list[Picture], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        (folder / f"{number:03d}.png").write_bytes(codec.encode_png(picture))
    return folder


@pytest.mark.slow
def test_the_commands(tmp_path: Path) -> None:
    good = save_all(scenes(8), tmp_path / "good")
    new = save_all([scene(20), spotted(21, 60, 100, size=12)], tmp_path / "new")
    model = tmp_path / "part.fapm"
    said = run_process("fit", good, "-o", model, "--tile", 64, "--overlap", 16)
    assert (said.code, said.out) == (0, f"{model}\n")
    info = run_process("info", model).out
    assert "tiles of 64 x 64 pixels, of pictures of 200 x 144" in info
    found = run_process(
        "inspect", new, "-m", model, "--jsonl", "-", "--overlays", tmp_path / "seen", "-q"
    )
    assert found.code == 0
    records = [json.loads(line) for line in found.out.splitlines()]
    assert records[1]["score"] > 1.3 * records[0]["score"]
    (overlay,) = [p for p in (tmp_path / "seen").iterdir() if p.name.startswith("001")]
    assert codec.read_size(overlay) is not None
    for kind in ("openvino", "onnx"):
        exported = run_process("export", model, tmp_path / kind, "--to", kind, "--pictures", new)
        assert exported.code == 0, exported.err
        described = json.loads((tmp_path / kind / "detector.json").read_text())
        assert described["input"] == "frame: uint8 [1, 144, 200, 3], RGB"
        assert described["resize"] == [144, 200]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("benchmark",), "benchmark measures PatchCore beside it, on square frames"),
        (
            ("reproduce", "table1", "--preset", "fast"),
            "reproduce makes the paper's tables, with square frames",
        ),
    ],
    ids=["benchmark", "reproduce"],
)
@pytest.mark.parametrize(
    ("knob", "name"), [("--tile 64", "tile"), ("--keep-aspect", "keep_aspect")], ids=lambda k: k
)
def test_commands_that_take_square_frames(
    command: tuple[str, ...], reason: str, knob: str, name: str, refusal: Refusal, washers: Path
) -> None:
    assert refusal(*command, washers, *knob.split()) == f"{name}: {reason}; leave it out"


@pytest.mark.parametrize("knob", ["--tile 64 --overlap 16", "--keep-aspect --resize 96"])
def test_the_audit_command_takes_frames_of_any_shape(
    knob: str, run: Command, tmp_path: Path
) -> None:
    pictures = scenes(9)
    pictures[4] = spotted(4, 60, 100, 14)
    good, report = save_all(pictures, tmp_path / "good"), tmp_path / "report"
    said = run("audit", good, *knob.split(), "--json", "-", "--quiet", "--report", report)
    assert said.code == 0, said.err
    first = json.loads(said.out)["pictures"][0]
    assert (first["picture"], first["stands_out"]) == ("004.png", True)
    assert "004.png" in (report / "report.html").read_text(encoding="utf-8")


def test_a_tile_larger_than_the_pictures_is_one_line(
    refusal: Refusal, washers: Path, tmp_path: Path
) -> None:
    said = refusal("fit", washers / "train" / "good", "-o", tmp_path / "x.fapm", "--tile", 512)
    assert said.startswith("tile: 512 is larger than the pictures of ")


def test_evaluate_compares_pixels_on_the_map(run: Command, washers: Path) -> None:
    said = run("evaluate", washers, "--tile", 48, "--json", "-", "-q")
    assert said.code == 0, said.err
    figures = json.loads(said.out)
    assert figures["image_auroc"] >= 0.9
    assert figures["pixel_auroc"] >= 0.9


@pytest.mark.slow
def test_twelve_megapixels_fit_into_memory(tmp_path: Path) -> None:
    code = """
import resource, sys
import numpy as np
import fapm
y, x = np.mgrid[:3000, :4000]
base = (110 + 50 * np.sin(x * x / 90_000) + 50 * np.cos(y / 23))[:, :, None]
def frame(seed):
    noise = np.random.default_rng(seed).normal(scale=5, size=base.shape)
    return np.clip(base + noise, 0, 255).astype(np.uint8).repeat(3, axis=2)
if sys.argv[1] == "fit":
    fapm.fit([frame(seed) for seed in range(3)], tile=512, overlap=64).save(sys.argv[2])
else:
    detector = fapm.load(sys.argv[2])
    assert detector.fitted_.layout.tiling == (7, 9)
    bad = frame(9)
    bad[1500:1524, 3975:3999] = 255
    good, found = detector.predict([frame(8), bad])
    assert found.score > 1.5 * good.score, (found.score, good.score)
    peak = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
    assert np.abs(np.array(peak) - (1512, 3987)).max() < 24, peak
    assert found.anomaly_map.shape == (3000, 4000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)
"""
    peaks = []
    for step in ("fit", "inspect"):
        command = [sys.executable, "-c", code, step, str(tmp_path / "large.fapm")]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        peaks.append(int(finished.stdout))
    assert max(peaks) < 4000  # MB; all 63 tiles in one batch would take more by themselves
