"""Regions of interest: what is outside gets no keys, costs nothing and cannot raise a score."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import fapm
import parts
import reference
from conftest import Command, Refusal
from fapm import Detector
from fapm.bundle.archive import read_archive, write_archive
from fapm.bundle.calibration import calibrate
from fapm.bundle.file import save
from fapm.bundle.fitted import Fitted
from fapm.config import Config
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from fapm.errors import BundleError, RoiError
from fapm.fitting import fit as fitting
from fapm.fitting.foreground import foreground
from fapm.frames.layout import layout_of
from fapm.frames.roi import Regions, drawn_roi
from fapm.graph.search import write_search
from fapm.memory.geometry import inside_cells, map_weights, smoothing_matrix
from fapm.training import spool
from regions import ENGINES, Mask, asked, check_engines, frames_of, judge, square
from stripes import COUNT, bundle_bytes, defective, good, good_pictures

CONFIG = Config.create(resize=64)


def blob(edge: int = 64) -> Mask:
    """Neither convex nor on the cells' grid, and away from the defect of stripes."""
    mask = np.zeros((edge, edge), np.bool_)
    mask[edge // 6 : edge // 2, edge // 3 :] = True
    mask[edge // 2 :, edge * 5 // 8 : edge * 7 // 8] = True
    return mask


# The paper in float64, with a mask


CASES: dict[str, Config] = {
    "fast": CONFIG,
    "four neighbours": Config.create(resize=64, neighbours=4),
    "wider search": Config.create(resize=64, radius=1, neighbours=2),
    "not layer-wise": Config.create(resize=64, layer_wise=False),
    "not patch-wise": Config.create(resize=64, grid=1),
    "no size divides": Config.create(resize=88, grid=5, sampling="near-far"),
    "row order": Config.create(resize=64, coarse_upsampling="row-order", sampling="none"),
    "few keys": Config.create(resize=64, max_keys=30, grid=2, ratio=0.3),
    "crop": Config.create(resize=80, crop=64, sigma=0),
    "score of surroundings": Config.create(resize=64, score_sigma=1.0),
}


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request: pytest.FixtureRequest) -> tuple[Config, Fitted, Fitted]:
    """A fit with a region, and one on whole frames that is then restricted to it."""
    config = CASES[request.param]
    encoder = create_encoder(config)
    pictures = [good(seed, 96, 96) for seed in range(8)]
    fitted = fitting.fit(pictures, config, encoder, Runtime(), regions=Regions(blob(96)))
    whole = Detector(config).fit(pictures)
    return config, fitted, whole.restrict(blob(96)).fitted_


def memories(config: Config, fitted: Fitted, normal: list[Any]) -> list[reference.Memory]:
    inside = fitted.frame_roi
    assert inside is not None
    sizes = [layer.shape[2:] for layer in normal]
    masks = reference.inspected_cells(inside, sizes, config.coarse_upsampling)
    if config.max_keys is None:
        return [
            reference.memorise(
                layer,
                grid=config.grid,
                ratio=config.ratio,
                sampling=config.sampling,
                distance_unit=config.distance_unit,
                far_threshold=config.far_threshold,
                inside=mask,
            )
            for layer, mask in zip(normal, masks, strict=True)
        ]
    return [reference.of_bank(bank, mask) for bank, mask in zip(fitted.banks, masks, strict=True)]


def test_the_paper_with_a_mask(case: tuple[Config, Fitted, Fitted]) -> None:
    """Keys, scores, maps, worst cells and thresholds, on every engine, fitted with the region."""
    config, fitted, _ = case
    roi = fitted.frame_roi
    assert roi is not None
    normal = asked(fitted, [good(seed, 96, 96) for seed in range(8)])
    held = memories(config, fitted, normal)
    for bank, memory in zip(fitted.banks, held, strict=True):
        assert bank.offsets.tolist() == np.cumsum([0, *map(len, memory.keys)]).tolist()
        np.testing.assert_allclose(bank.keys, np.concatenate(memory.keys), rtol=1e-6)
        assert bank.inside is not None
        assert bank.inside[bank.cells].all()
    if config.max_keys is not None:
        assert sum(len(bank.keys) for bank in fitted.banks) == config.max_keys
    pictures = [good(70, 96, 96), defective(71, 96, 96)]
    judged = judge(config, roi, held, asked(fitted, pictures))
    check_engines(fitted, frames_of(fitted, pictures), judged, roi)

    left_out = judge(config, roi, held, normal, without_pictures=range(8))
    np.testing.assert_allclose(fitted.calibration.scores, left_out.scores, rtol=1e-3)
    expected = calibrate(
        left_out.scores, left_out.maps.max(axis=(1, 2)), false_positive_rate=0.01, unsure_rate=0.05
    )
    assert fitted.calibration.threshold == pytest.approx(expected.threshold, rel=1e-3)
    assert fitted.calibration.map_threshold == pytest.approx(expected.map_threshold, rel=1e-3)


def test_the_whole_memory_with_a_mask(case: tuple[Config, Fitted, Fitted]) -> None:
    """A region at inspection only: the same keys, looked at in fewer places."""
    config, _, fitted = case
    roi = fitted.frame_roi
    assert roi is not None
    sizes = [(bank.height, bank.width) for bank in fitted.banks]
    masks = reference.inspected_cells(roi, sizes, config.coarse_upsampling)
    held = [reference.of_bank(bank, m) for bank, m in zip(fitted.banks, masks, strict=True)]
    pictures = [good(70, 96, 96), defective(71, 96, 96)]
    judged = judge(config, roi, held, asked(fitted, pictures))
    check_engines(fitted, frames_of(fitted, pictures), judged, roi)


# Cells and weights


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 40), st.integers(1, 9), st.integers(1, 9))
def test_a_cell_counts_if_half_of_it_is_inside(seed: int, edge: int, rows: int, width: int) -> None:
    """By points: each pixel cut into as many pieces as make cells of whole pieces."""
    roi = np.random.default_rng(seed).random((edge, edge)) < 0.5
    fine = roi.repeat(rows, axis=0).repeat(width, axis=1)  # [rows * edge, width * edge]
    share = fine.reshape(rows, edge, width, edge).mean(axis=(1, 3))
    (inside,) = inside_cells(roi, [(rows, width)])
    np.testing.assert_array_equal(inside.reshape(rows, width), share >= 0.5 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(8, 4), (7, 4), (12, 6), (5, 5), (6, 11)]))
def test_every_layer_under_an_inspected_cell_is_inspected(seed: int, sizes: Any) -> None:
    roi = np.random.default_rng(seed).random((56, 56)) < 0.5
    finest = max(sizes)
    layers = inside_cells(roi, [(n, n) for n in sizes])
    for number, size in enumerate(sizes):
        shown = reference.nearest_upsampling(layers[number].reshape(size, size), finest, finest)
        assert shown.ravel()[layers[sizes.index(finest)]].all()


def test_the_map_does_not_fade_towards_the_outline() -> None:
    """Cells that are all at one distance give a map of that distance, up to the outline."""
    roi = blob()
    (inside,) = inside_cells(roi, [(8, 8)])
    smooth = smoothing_matrix(8, 64, 3.0)
    weights = map_weights(roi, inside, (smooth, smooth))
    flat = smooth @ inside.reshape(8, 8) @ smooth.T * weights
    assert (flat[~roi] == 0).all()
    np.testing.assert_allclose(flat[roi], 1, rtol=1e-9)


def test_whole_frames_are_as_without_a_region(detector: Detector) -> None:
    everything = detector.restrict(np.ones((64, 64), np.bool_))
    for ours, theirs in zip(
        everything.predict([good(50), defective(51)]),
        detector.predict([good(50), defective(51)]),
        strict=True,
    ):
        assert ours.score == pytest.approx(theirs.score, rel=1e-6)
        np.testing.assert_allclose(ours.frame_map, theirs.frame_map, rtol=1e-5)


# What it is for


def test_what_is_outside_cannot_raise_a_score(detector: Detector) -> None:
    """Whatever the engine finds is the worst of the inspected cells of the whole map."""
    for engine in ENGINES:
        runtime = Runtime(engine=engine)  # type: ignore[arg-type]
        part = Detector.of(detector.restrict(blob()).fitted_, runtime=runtime)
        for picture in (good(60), defective(61)):
            p = part.predict(picture)
            assert p.score <= detector.score(picture) * (1 + 1e-5)
            assert p.inspected is not None
            here = p.comparison.here
            middle = int((here.y + here.height / 2) * 64), int((here.x + here.width / 2) * 64)
            assert (
                p.inspected[middle]
                or p.inspected[middle[0] - 4 : middle[0] + 4, middle[1] - 4 : middle[1] + 4].mean()
                >= 0.5
            )
            assert (p.anomaly_map[~p.inspected] == 0).all()
            outside = [
                r for r in p.regions if not p.inspected[r.contour[:, 1], r.contour[:, 0]].all()
            ]
            assert outside == []


def test_an_ignored_defect_is_no_defect() -> None:
    """Defects change features a little way off too, so the ignored square is larger than it."""
    pictures = [good(seed, 224, 224) for seed in range(6)]
    config = Config.create(resize=224)
    spoilt = good(90, 224, 224)
    spoilt[20:50, 20:50] = 255
    ignored = square(224, slice(0, 120), slice(0, 120))
    held = Detector(config).fit(pictures, ignore=ignored)
    assert Detector(config).fit(pictures).predict(spoilt).verdict == "defect"
    inside, free = held.predict(spoilt), held.predict(good(90, 224, 224))
    assert inside.verdict != "defect"
    assert inside.score < 2 * free.score
    spoilt[170:200, 170:200] = 255
    assert held.predict(spoilt).verdict == "defect"


def test_keys_belong_to_inspected_cells_and_the_budget_counts_those(detector: Detector) -> None:
    held = Detector(CONFIG).fit(good_pictures(), roi=blob())
    for bank, whole in zip(held.fitted_.banks, detector.fitted_.banks, strict=True):
        assert bank.inside is not None
        assert bank.inside[bank.cells].all()
        assert len(bank.keys) < len(whole.keys)
        assert (np.diff(bank.offsets) == 0).any()
        # Equal-radius sampling spends plain sampling's budget: a tenth, rounded up by patch.
        tenth = 0.1 * COUNT * bank.inside.sum()
        patches = np.count_nonzero(np.diff(bank.offsets))
        assert tenth <= len(bank.keys) <= tenth + 4 * patches


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_outside_leaves_the_graph(detector: Detector, precision: Any) -> None:
    """Keys of patches wholly outside are in none of the products."""

    def products(fitted: Fitted) -> int:
        model = write_search(
            fitted.banks, fitted.config, fitted.encoder.shapes, precision, fitted.frame_roi
        )
        return sum(int(np.prod(c.dims)) for c in model.graph.initializer if len(c.dims) == 3)

    part = detector.restrict(square(64, slice(0, 32), slice(0, 32))).fitted_
    assert products(part) < 0.5 * products(detector.fitted_)


def test_regions_narrow_each_other(detector: Detector) -> None:
    rows, columns = np.ones((2, 64, 64), np.bool_)
    rows[32:], columns[:, 32:] = False, False
    both = detector.restrict(rows).restrict(columns)
    np.testing.assert_array_equal(both.fitted_.frame_roi, rows & columns)
    assert both.score(defective(3)) == detector.restrict(rows & columns).score(defective(3))
    assert detector.fitted_.roi is None
    with pytest.raises(RoiError, match="leave nothing"):
        detector.restrict(rows).restrict(~rows)


# How regions are given


def test_picture_polygons_and_array_are_one(tmp_path: Path) -> None:
    mask = square(64, slice(8, 40), slice(16, 48))
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "roi.png")
    corners = [[16, 8], [48, 8], [48, 40], [16, 40]]
    polygons = {"width": 64, "height": 64, "polygons": [corners]}
    (tmp_path / "roi.json").write_text(json.dumps(polygons))
    large = {"width": 640, "height": 640, "polygons": [[[10 * x, 10 * y] for x, y in corners]]}
    for region in (mask, tmp_path / "roi.png", str(tmp_path / "roi.json"), polygons, large,
                   mask.repeat(3, axis=0).repeat(3, axis=1)):  # fmt: skip
        roi = drawn_roi(region, None, layout_of(CONFIG))
        assert roi is not None
        np.testing.assert_array_equal(roi.inside, mask)
        rest = drawn_roi(None, region, layout_of(CONFIG))
        assert rest is not None
        np.testing.assert_array_equal(rest.inside, ~mask)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_triangles_cover_their_pixels(seed: int) -> None:
    """A pixel's centre well inside is inside, and one well outside is outside."""
    corners = np.random.default_rng(seed).uniform(-10, 74, (3, 2)).astype(np.float32)
    region = {"width": 64, "height": 64, "polygons": [corners.tolist()]}
    y, x = np.mgrid[:64, :64] + 0.5
    apart = np.array(
        [
            cv2.pointPolygonTest(corners, (float(a), float(b)), measureDist=True)
            for a, b in zip(x.ravel(), y.ravel(), strict=True)
        ]
    ).reshape(64, 64)
    try:
        roi = drawn_roi(region, None, layout_of(CONFIG))
    except RoiError:
        assert apart.max() < 1.5
        return
    assert roi is not None
    assert roi.inside[apart > 1].all()
    assert not roi.inside[apart < -1].any()


def test_polygons_add_up_and_may_reach_beyond_the_picture() -> None:
    polygons = [
        [[-20, -20], [32, -20], [32, 84], [-20, 84]],
        [[40, 40], [64, 40], [64, 64], [40, 64]],
    ]
    roi = drawn_roi({"width": 64, "height": 64, "polygons": polygons}, None, layout_of(CONFIG))
    assert roi is not None
    expected = square(64, slice(0, 64), slice(0, 32)) | square(64, slice(40, 64), slice(40, 64))
    np.testing.assert_array_equal(roi.inside, expected)


def test_a_crop_sees_its_part_of_a_region() -> None:
    config = Config.create(resize=80, crop=64)
    roi = drawn_roi(square(80, slice(0, 40), slice(0, 80)), None, layout_of(config))
    assert roi is not None
    np.testing.assert_array_equal(roi.inside, square(64, slice(0, 32), slice(0, 64)))


# Learned from pictures


def disc(seed: int, *, x: int = 32, background: int = 230, noise: float = 3) -> NDArray[np.uint8]:
    picture = np.full((64, 64, 3), background, np.uint8)
    cv2.circle(picture, (x, 32), 14, (60, 80, 90), -1)
    noisy = picture + np.random.default_rng(seed).normal(scale=noise, size=picture.shape)
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("background", [230, 10])
def test_a_part_on_a_plain_background_is_found(background: int) -> None:
    found = foreground([disc(seed, background=background) for seed in range(5)])
    assert found is not None
    y, x = np.mgrid[:64, :64]
    distance = np.hypot(y - 32, x - 32)
    assert found[distance <= 14].all()
    assert not found[distance > 14 + 6].any()


def test_wherever_the_part_lies_is_foreground() -> None:
    found = foreground([disc(seed, x=20 + 4 * (seed % 7)) for seed in range(21)])
    assert found is not None
    assert found[32, 20 - 13 : 44 + 13].all()
    assert not found[:8].any()


def test_specks_are_no_part_and_a_hole_in_it_is() -> None:
    pictures = [disc(seed) for seed in range(5)]
    for picture in pictures:
        cv2.circle(picture, (32, 32), 6, (230, 230, 230), -1)
        picture[4:5, 4:5] = 0
    found = foreground(pictures)
    assert found is not None
    assert found[32, 32]
    assert not found[:8, :8].any()


def test_a_texture_has_no_plain_background() -> None:
    assert foreground(good_pictures(6)) is None
    assert foreground([np.full((64, 64, 3), 90, np.uint8)] * 3) is None


def test_auto_says_what_it_found() -> None:
    held = fapm.fit([disc(seed) for seed in range(6)], roi="auto", resize=64)
    (said,) = [note for note in held.notes_ if note.startswith("roi auto")]
    roi = held.fitted_.frame_roi
    assert roi is not None
    assert (
        said
        == f"roi auto: the part and a margin around it take {100 * roi.mean():.0f} % of the frame"
    )
    ignored = fapm.fit(
        [disc(seed) for seed in range(6)],
        roi="auto",
        ignore=square(64, slice(0, 32), slice(0, 64)),
        resize=64,
    )
    assert ignored.fitted_.frame_roi is not None
    assert not ignored.fitted_.frame_roi[:32].any()
    with pytest.raises(RoiError, match="ignore: covers all"):
        fapm.fit(
            [disc(s) for s in range(3)],
            roi="auto",
            ignore=np.arange(64) % 63 > 0 & np.ones((64, 64), np.bool_),
            resize=64,
        )
    whole = fapm.fit(good_pictures(4), roi="auto", resize=64)
    assert whole.fitted_.roi is None
    assert any("no plain background" in note for note in whole.notes_)


# Bundles


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    held = Detector(CONFIG).fit(good_pictures(), roi=blob())
    path = tmp_path_factory.mktemp("masked") / "part.fapm"
    held.save(path)
    return held, path


def test_a_region_travels_in_the_bundle(masked: tuple[Detector, Path], tmp_path: Path) -> None:
    held, path = masked
    loaded = fapm.load(path)
    np.testing.assert_array_equal(loaded.fitted_.frame_roi, blob())
    assert loaded.fitted_.roi is not None
    assert loaded.fitted_.roi.drawn_on == (64, 64)
    for picture in (good(80), defective(80)):
        ours, theirs = held.predict(picture), loaded.predict(picture)
        assert ours.score == theirs.score
        np.testing.assert_array_equal(ours.anomaly_map, theirs.anomaly_map)
    assert bundle_bytes(loaded, tmp_path / "again.fapm") == path.read_bytes()
    layer = read_archive(path)[0]["layers"][0]
    bank = held.fitted_.banks[0]
    assert layer["vectors"] == COUNT * bank.inspected < COUNT * bank.height * bank.width


def test_a_restricted_detector_can_be_saved(detector: Detector, tmp_path: Path) -> None:
    part = detector.restrict(blob())
    part.save(tmp_path / "part.fapm")
    assert fapm.load(tmp_path / "part.fapm").score(defective(1)) == part.score(defective(1))


FORGERIES: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "not of the frame": lambda m, t: t.update(roi=blob(32)),
    "of numbers": lambda m, t: t.update(roi=blob().astype(np.uint8)),
    "empty": lambda m, t: (t.update(roi=~blob() & blob()), m["roi"].update(share=0.0)),
    "wider than the memory": lambda m, t: (
        t.update(roi=blob() | ~blob()), m["roi"].update(share=1.0)
    ),
    "of another share": lambda m, t: m["roi"].update(share=0.5),
    "that is not there": lambda m, t: t.pop("roi"),
    "nobody refers to": lambda m, t: m.update(roi=None),
    "drawn on nothing": lambda m, t: m["roi"].update(drawn_on=[0, 64]),
    "drawn on text": lambda m, t: m["roi"].update(drawn_on="64"),
    "that is text": lambda m, t: m.update(roi="all"),
    "with no share": lambda m, t: m["roi"].pop("share"),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_region_is_refused(
    forgery: str, masked: tuple[Detector, Path], tmp_path: Path
) -> None:
    import safetensors.numpy

    manifest, contents = read_archive(masked[1])
    memory = safetensors.numpy.load(contents["memory.safetensors"])
    FORGERIES[forgery](manifest, memory)
    contents["memory.safetensors"] = safetensors.numpy.save(memory)
    write_archive(tmp_path / "part.fapm", manifest, contents)
    with pytest.raises(BundleError, match="not a usable bundle") as caught:
        fapm.load(tmp_path / "part.fapm")
    assert "\n" not in str(caught.value)


def test_maps_larger_than_the_frame_are_refused_before_cells_are_counted(
    masked: tuple[Detector, Path], tmp_path: Path
) -> None:
    fitted = masked[0].fitted_
    shapes = ((40, 10**7, 10**7), *fitted.encoder.shapes[1:])
    save(replace(fitted, encoder=replace(fitted.encoder, shapes=shapes)), tmp_path / "part.fapm")
    with pytest.raises(BundleError, match="its encoder contradicts its config"):
        fapm.load(tmp_path / "part.fapm")


def test_export_carries_the_region(masked: tuple[Detector, Path], tmp_path: Path) -> None:
    from fapm.inspection.export import export, sample_frames

    for kind in ("onnx", "openvino"):
        assert (
            export(masked[0].snapshot(), kind, tmp_path / kind, sample_frames(masked[0].fitted_))
            < 1e-3
        )


# The command line


def test_from_fit_to_overlay(run: Command, washers: Path, tmp_path: Path) -> None:
    """A hole outside the region is no defect; one inside is; the overlay shows the outline."""
    rows, columns = parts.HOLE
    hole = {
        "width": 640,
        "height": 640,
        "polygons": [[[240, 200], [440, 200], [440, 400], [240, 400]]],
    }
    away = square(64, slice(0, 64), slice(0, 64))
    away[max(0, rows.start - 14) :, max(0, columns.start - 14) :] = False
    (tmp_path / "hole.json").write_text(json.dumps(hole))
    parts.save(tmp_path / "away.png", away.astype(np.uint8) * 255)
    fit = ("fit", washers / "train" / "good", "--resize", 64, "--output")
    here, there = tmp_path / "here.fapm", tmp_path / "there.fapm"
    assert run(*fit, here, "--roi", tmp_path / "hole.json").code == 0
    assert run(*fit, there, "--ignore", tmp_path / "hole.json").code == 0
    assert "inspected" in run("info", here).out
    holes = washers / "test" / "hole"
    said = run("inspect", holes, "--model", here, "--overlays", tmp_path / "maps")
    assert said.out.count("defect") == 3
    assert said.code == 0
    with Image.open(tmp_path / "maps" / "000.png") as picture:
        painted = np.array(picture)
    np.testing.assert_array_equal(painted[:16], parts.part(200, hole=True)[:16])
    scores = [
        float(line.split()[1])
        for model in (here, there)
        for line in run("inspect", holes / "000.png", "--model", model).out.splitlines()
    ]
    report = ("--report", tmp_path / "report")
    assert run("inspect", holes, "--model", here, *report).code == 0
    assert "of the frame" in (tmp_path / "report" / "report.html").read_text()
    narrowed = run("inspect", holes / "000.png", "--model", there, "--roi", tmp_path / "away.png")
    assert scores[0] > scores[1] > float(narrowed.out.split()[1])


BAD: dict[str, tuple[str, bytes | str, str]] = {
    "nothing there": ("roi.png", b"", "the file is empty"),
    "no picture": ("roi.png", "white", "not a JPEG, PNG, BMP, TIFF or WebP picture"),
    "no JSON": ("roi.json", "{", "not a JSON that can be read"),
    "JSON by content": ("roi.txt", '{"width": 64', "not a JSON that can be read"),
    "deep JSON": ("roi.json", "[" * 100_000, "not a JSON that can be read"),
    "a list": ("roi.json", "[[1, 2]]", "expected {"),
    "two points": (
        "roi.json", '{"width": 64, "height": 64, "polygons": [[[1, 2], [3, 4]]]}',
        "polygons.0: List should have at least 3 items",
    ),
    "no polygons": ("roi.json", '{"width": 64, "height": 64, "polygons": []}', "at least 1 item"),
    "no size": ("roi.json", '{"polygons": [[[1, 2], [3, 4], [5, 0]]]}', "width: Field required"),
    "no area": (
        "roi.json", '{"width": 64, "height": 64, "polygons": [[[70, 2], [90, 2], [80, 9]]]}',
        "polygon 0 lies outside the picture of 64 x 64 pixels",
    ),
    "far outside": (
        "roi.json", '{"width": 64, "height": 64, "polygons": [[[1, 2], [1e300, 2], [8, 9]]]}',
        "polygon 0 lies outside the picture",
    ),
    "not a number": (
        "roi.json", '{"width": 64, "height": 64, "polygons": [[[1, 2], [NaN, 2], [8, 9]]]}',
        "polygon 0 lies outside the picture",
    ),
    "words": (
        "roi.json", '{"width": 64, "height": 64, "polygons": [[["a", 2], [3, 2], [8, 9]]]}',
        "polygons.0.0.0: Input should be a valid number",
    ),
    "smaller than a cell": (
        "roi.json", '{"width": 64, "height": 64, "polygons": [[[8, 8], [10, 8], [10, 10]]]}',
        "no cell of 8 x 8 pixels of the 64 x 64 pixel frame has half its area inside",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_region_is_refused_in_one_line(
    name: str, refusal: Refusal, good: Path, model: Path, tmp_path: Path
) -> None:
    file, content, complaint = BAD[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for arguments in (
        ("fit", good, "--output", tmp_path / "x.fapm", "--resize", 64),
        ("inspect", good, "--model", model),
    ):
        assert complaint in refusal(*arguments, "--roi", path)
    assert not (tmp_path / "x.fapm").exists()


def test_black_masks_and_missing_files_are_refused(
    refusal: Refusal, good: Path, model: Path, tmp_path: Path
) -> None:
    inspect = ("inspect", good, "--model", model)
    black = parts.save(tmp_path / "black.png", np.zeros((64, 64), np.uint8))
    assert "no pixel is white" in refusal(*inspect, "--roi", black)
    assert "no such file" in refusal(*inspect, "--ignore", tmp_path / "none.json")
    assert "is a folder" in refusal(*inspect, "--roi", good)
    white = parts.save(tmp_path / "white.png", np.full((64, 64), 255, np.uint8))
    assert "leave nothing" in refusal(*inspect, "--ignore", white)
    assert "leave nothing" in refusal(*inspect, "--roi", white, "--ignore", white)
    wide = parts.save(tmp_path / "wide.png", np.full((64, 128), 255, np.uint8))
    line = refusal(*inspect, "--roi", white, "--ignore", wide)
    assert "leave nothing" in line or "64 x 64 and of 128 x 64" in line
    for option in ("--roi", "--ignore"):
        assert refusal(*inspect, option, "auto") == (
            f"{option.removeprefix('--')}: auto is learned from the good pictures, by fapm fit "
            "--roi auto; name a file"
        )


def test_a_region_of_another_shape_than_the_pictures(
    refusal: Refusal, run: Command, good: Path, model: Path, tmp_path: Path
) -> None:
    """Larger is fine; wider is said of every picture, with both sizes."""
    large = parts.save(tmp_path / "large.png", np.full((640, 640), 255, np.uint8))
    wide = parts.save(tmp_path / "wide.png", np.full((480, 640), 255, np.uint8))
    fit = ("fit", good, "--output", tmp_path / "x.fapm", "--resize", 64)
    complaint = "64 x 64 pixels, but the ROI was drawn on 640 x 480"
    line = refusal(*fit, "--roi", wide)
    assert line.startswith("none of 6 pictures could be read; the first: ")
    assert complaint in line
    finished = run("inspect", good, "--model", model, "--roi", wide)
    assert finished.code == 2
    assert finished.out.count(complaint) == 6
    assert run(*fit, "--roi", large).code == 0
    odd = tmp_path / "odd.png"
    Image.fromarray(parts.part(3)).resize((64, 48)).save(odd)
    said = run("inspect", good / "000.png", odd, "--model", tmp_path / "x.fapm")
    assert said.code == 0
    assert f"{odd}: 64 x 48 pixels, but the ROI was drawn on 640 x 640" in said.out


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((8, 8)),
        np.ones((8, 8, 3), np.bool_),
        np.ones(8, np.bool_),
        np.ones((1, 1), np.bool_),
    ],
    ids=["floats", "three axes", "one axis", "one pixel"],
)
def test_arrays_that_are_no_mask(detector: Detector, mask: Any) -> None:
    with pytest.raises(RoiError, match=r"roi: .* expected bool \[H, W\]"):
        detector.restrict(mask)


def test_auto_is_for_fits(refusal: Refusal, washers: Path, model: Path) -> None:
    line = refusal("evaluate", washers, "--model", model, "--roi", "auto")
    assert line.startswith("--roi auto: is learned at fit")


def test_features_in_a_file_give_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to float16: of many pictures, only inspected cells are written and read."""
    held = Detector(CONFIG).fit(good_pictures(), roi=blob())
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 0)
    filed = Detector(CONFIG).fit(good_pictures(), roi=blob())
    assert filed.threshold_ == pytest.approx(held.threshold_, rel=0.02)
    assert filed.score(defective(1)) == pytest.approx(held.score(defective(1)), rel=0.02)
