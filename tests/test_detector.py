"""The detector people hold, on small pictures of a part with a bright square as its defect."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import scipy.ndimage
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import fapm
from fapm import Detector, Failure, Prediction
from fapm.archive import read_archive, write_archive
from fapm.config import Config
from fapm.errors import BundleError, DatasetError, ImageError, NotFittedError, OutputError

Picture = NDArray[np.uint8]

CONFIG = Config.create(resize=64)
COUNT = 12
DEFECT = slice(40, 56), slice(8, 24)  # rows and columns, in a picture of 64 x 64


def good(seed: int, height: int = 64, width: int = 64) -> Picture:
    """A striped part under its own noise."""
    y, x = np.mgrid[:height, :width]
    stripes = 110 + 40 * np.sin(x / 3) + 30 * np.cos(y / 5)
    noise = np.random.default_rng(seed).normal(scale=10, size=(height, width, 3))
    return np.clip(stripes[:, :, None] + noise, 0, 255).astype(np.uint8)


def defective(seed: int, height: int = 64, width: int = 64) -> Picture:
    picture = good(seed, height, width)
    rows, columns = DEFECT
    picture[
        rows.start * height // 64 : rows.stop * height // 64,
        columns.start * width // 64 : columns.stop * width // 64,
    ] = 255
    return picture


def good_pictures(count: int = COUNT) -> list[Picture]:
    return [good(seed) for seed in range(count)]


def fitted(source: object, **overrides: Any) -> Detector:
    return Detector(Config.create(resize=64, **overrides)).fit(source)


def keys_of(detector: Detector) -> list[Tensor]:
    return [bank.keys for bank in detector.fitted_.banks]


def bundle_bytes(detector: Detector, path: Path) -> bytes:
    detector.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def detector() -> Detector:
    return fitted(good_pictures())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as files, without loss, and in the order of their names."""
    folder = tmp_path_factory.mktemp("good")
    for number, picture in enumerate(good_pictures()):
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def bundle(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "part.fapm"
    detector.save(path)
    return path


# Fit


SOURCES: dict[str, Callable[[Path], object]] = {
    "folder": lambda folder: folder,
    "folder as str": str,
    "paths": lambda folder: sorted(folder.iterdir()),
    "paths as str": lambda folder: [str(path) for path in sorted(folder.iterdir())],
    "generator of paths": lambda folder: (path for path in sorted(folder.iterdir())),
    "list of folders": lambda folder: [folder],
    "arrays": lambda _: good_pictures(),
    "generator of arrays": lambda _: (picture for picture in good_pictures()),
    "4-D array": lambda _: np.stack(good_pictures()),
    "arrays and paths": lambda folder: [*good_pictures(6), *sorted(folder.iterdir())[6:]],
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_source_gives_the_same_detector(
    source: str, folder: Path, detector: Detector
) -> None:
    other = fitted(SOURCES[source](folder))
    assert len(other.fitted_.pictures) == COUNT
    for ours, theirs in zip(keys_of(other), keys_of(detector), strict=True):
        assert torch.equal(ours, theirs)
    assert other.threshold_ == detector.threshold_


def test_files_are_named_below_the_folder_they_share_and_arrays_by_position(
    folder: Path, tmp_path: Path
) -> None:
    assert fitted(folder).fitted_.pictures == tuple(f"{n:02d}.png" for n in range(COUNT))
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        Image.fromarray(good(0)).save(tmp_path / side / "0.png")
    mixed = [good(1), tmp_path / "left", good(2), tmp_path / "right" / "0.png"]
    names = ("array 0", "left/0.png", "array 2", "right/0.png")
    assert fitted(mixed).fitted_.pictures == names


def test_the_shortest_way_is_the_same(detector: Detector) -> None:
    short = fapm.fit(good_pictures(), resize=64)
    assert short.config == detector.config
    assert short.threshold_ == detector.threshold_


def test_overrides_and_presets_reach_the_config() -> None:
    short = fapm.fit(good_pictures(3), "accurate", resize=64, ratio=0.3, grid=4)
    assert short.config == Config.create("accurate", resize=64, ratio=0.3, grid=4)
    assert {bank.grid for bank in short.fitted_.banks} == {4}


def test_a_fit_on_a_folder_of_a_dataset_takes_its_training_pictures_only(tmp_path: Path) -> None:
    for number, picture in enumerate([*good_pictures(4), defective(9)]):
        kind = tmp_path / ("train/good" if number < 4 else "test/broken")
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(kind / f"{number}.png")
    assert fitted(tmp_path).fitted_.pictures == ("0.png", "1.png", "2.png", "3.png")


def test_progress_is_told_stage_by_stage_to_the_end() -> None:
    told: list[tuple[str, int, int]] = []
    Detector(CONFIG).fit(good_pictures(5), progress=lambda *step: told.append(step))
    stages = [stage for stage, _ in itertools.groupby(told, key=lambda step: step[0])]
    assert stages == ["encode", "memorise", "calibrate"]
    for stage in stages:
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]
        assert len({total for _, total in steps}) == 1


def test_fitting_again_starts_afresh(detector: Detector) -> None:
    again = fitted([good(seed) for seed in range(50, 56)])
    again.fit(good_pictures())
    assert again.threshold_ == detector.threshold_
    assert len(again.fitted_.pictures) == COUNT


def test_a_fit_that_fails_leaves_the_old_one_in_place(tmp_path: Path) -> None:
    held = fitted(good_pictures(4))
    threshold = held.threshold_
    with pytest.raises(DatasetError):
        held.fit(tmp_path / "nowhere")
    assert held.threshold_ == threshold


@pytest.mark.parametrize("source", [[], np.empty((0, 64, 64, 3), np.uint8)], ids=["list", "array"])
def test_nothing_to_fit_on(source: object) -> None:
    with pytest.raises((ImageError, DatasetError), match="no pictures"):
        Detector(CONFIG).fit(source)


@pytest.mark.parametrize("source", [None, 7, 3.5])
def test_what_cannot_be_pictures_is_a_mistake_in_the_program(source: object) -> None:
    with pytest.raises(TypeError, match=type(source).__name__):
        Detector(CONFIG).fit(source)


def test_unreadable_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    for number, picture in enumerate(good_pictures(5)):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "7.png").write_text("not a picture")
    left = fitted(tmp_path)
    assert left.fitted_.pictures == ("0.png", "1.png", "3.png", "4.png")
    assert [Path(failure.source).name for failure in left.fitted_.skipped] == ["2.png", "7.png"]
    notes = [note for note in left.notes_ if note.startswith("left out of fit: ")]
    assert len(notes) == 2
    assert all(name in note for name, note in zip(("2.png", "7.png"), notes, strict=True))
    # Keys still name the right pictures.
    complete = fitted([good(seed) for seed in (0, 1, 3, 4)])
    for ours, theirs in zip(left.fitted_.banks, complete.fitted_.banks, strict=True):
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.pictures, theirs.pictures)


def test_if_no_picture_can_be_read_the_first_reason_is_given(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_text("text")
    with pytest.raises(ImageError, match=r"none of 2 pictures.*a\.png.*empty") as caught:
        Detector(CONFIG).fit(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_limit_on_pixels_holds_for_fit_and_predict(folder: Path, detector: Detector) -> None:
    with pytest.raises(ImageError, match="4,096 pixels, the limit is 4,095"):
        Detector(CONFIG, max_pixels=4095).fit(folder)
    strict = Detector(CONFIG, max_pixels=4096).fit(folder)
    strict.max_pixels = 4095
    with pytest.raises(ImageError, match="the limit is 4,095"):
        strict.predict(sorted(folder.iterdir())[0])


# Not fitted


@pytest.mark.parametrize(
    "use",
    [
        lambda d, path: d.predict(good(0)),
        lambda d, path: d.score(good(0)),
        lambda d, path: next(d.stream([good(0)])),
        lambda d, path: d.save(path),
        lambda d, path: d.threshold_,
        lambda d, path: d.notes_,
        lambda d, path: d.fitted_,
    ],
    ids=["predict", "score", "stream", "save", "threshold_", "notes_", "fitted_"],
)
def test_before_fit_nothing_else_works(use: Callable[..., object], tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        use(Detector(CONFIG), tmp_path / "part.fapm")
    assert list(tmp_path.iterdir()) == []


def test_what_a_detector_says_of_itself(detector: Detector) -> None:
    assert repr(Detector(CONFIG)) == "Detector(efficientnet_lite0, 64 px, not fitted)"
    assert repr(detector) == "Detector(efficientnet_lite0, 64 px, 12 pictures)"


# Predict


def test_defects_score_higher_than_good_parts(detector: Detector) -> None:
    normal = detector.score([good(seed) for seed in range(100, 110)])
    broken = detector.score([defective(seed) for seed in range(100, 110)])
    assert broken.min() > 1.5 * normal.max()
    assert broken.min() > detector.threshold_


def test_verdicts_and_percentiles_follow_from_the_scores(detector: Detector) -> None:
    calibration = detector.fitted_.calibration
    for picture in (good(100), defective(100)):
        prediction = detector.predict(picture)
        assert prediction.verdict == calibration.verdict(prediction.score)
        assert prediction.percentile == calibration.percentile(prediction.score)
        assert prediction.threshold == detector.threshold_
    assert detector.predict(defective(100)).verdict == "defect"
    assert detector.predict(defective(100)).percentile == 100


def test_one_picture_gives_one_prediction(detector: Detector, folder: Path) -> None:
    path = sorted(folder.iterdir())[0]
    for picture in (path, str(path), good(0)):
        prediction = detector.predict(picture)
        assert isinstance(prediction, Prediction)
        assert detector.score(picture) == prediction.score
    assert detector.predict(path).source == str(path)


@pytest.mark.parametrize(
    "pictures",
    [
        list,
        tuple,
        iter,
        np.stack,
        lambda pictures: (picture for picture in pictures),
    ],
    ids=["list", "tuple", "iterator", "array", "generator"],
)
def test_several_pictures_give_a_list_in_their_order(
    pictures: Callable[[list[Picture]], Any], detector: Detector
) -> None:
    asked = [good(0), defective(1), good(2), defective(3), good(4)]
    predictions = detector.predict(pictures(asked))
    assert isinstance(predictions, list)
    assert [p.verdict == "defect" for p in predictions] == [False, True, False, True, False]
    alone = [detector.score(picture) for picture in asked]
    assert [p.score for p in predictions] == pytest.approx(alone, rel=1e-3)
    scores = detector.score(pictures(asked))
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, [p.score for p in predictions])


def test_no_pictures_give_no_predictions(detector: Detector) -> None:
    assert detector.predict([]) == []
    assert detector.score([]).shape == (0,)


def test_grey_pictures_are_pictures(detector: Detector) -> None:
    grey = good(0)[:, :, 0]
    coloured = np.repeat(grey[:, :, None], 3, axis=2)
    assert detector.score(grey) == detector.score(coloured)


def test_predicting_changes_neither_the_picture_nor_the_detector(detector: Detector) -> None:
    picture = defective(5)
    before = picture.copy()
    first, second = detector.predict(picture), detector.predict(picture)
    np.testing.assert_array_equal(picture, before)
    assert first.score == second.score
    np.testing.assert_array_equal(first.frame_map, second.frame_map)


def test_a_worse_defect_scores_higher_without_a_ceiling(detector: Detector) -> None:
    scores = []
    for shade in (0.0, 0.25, 0.5, 0.75, 1.0):
        mixed = (1 - shade) * good(7) + shade * defective(7)
        scores.append(detector.score(mixed.astype(np.uint8)))
    assert scores == sorted(scores)
    assert scores[-1] > 2 * scores[0]


def test_a_picture_that_cannot_be_used_raises_with_its_name(
    detector: Detector, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    for pictures in (tmp_path / "broken.png", [good(0), tmp_path / "broken.png"]):
        with pytest.raises(ImageError, match=r"broken\.png"):
            detector.predict(pictures)
    with pytest.raises(ImageError, match="float64"):
        detector.predict([good(0), good(0) / 255])


# Stream


def test_a_broken_picture_fails_in_its_place_and_the_rest_go_on(
    detector: Detector, folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    paths = sorted(folder.iterdir())
    asked: list[Any] = [*paths[:5], broken, paths[5], good(1).astype(float), *paths[6:]]
    results = list(detector.stream(asked))
    failures = {n: r for n, r in enumerate(results) if isinstance(r, Failure)}
    assert list(failures) == [5, 7]
    assert failures[5].source == str(broken)
    assert "empty" in failures[5].error
    assert "float64" in failures[7].error
    assert all("\n" not in failure.error for failure in failures.values())
    predictions = [r for r in results if isinstance(r, Prediction)]
    assert [p.source for p in predictions] == list(map(str, paths))
    np.testing.assert_allclose(
        [p.score for p in predictions], detector.score(paths), rtol=1e-3, atol=1e-3
    )


def test_a_batch_of_broken_pictures_only(detector: Detector, tmp_path: Path) -> None:
    missing = [tmp_path / f"{n}.png" for n in range(6)]
    results = list(detector.stream([*missing, good(0)]))
    assert [type(result) for result in results] == [Failure] * 6 + [Prediction]


def test_a_stream_ends_where_its_reader_stops(detector: Detector) -> None:
    taken: list[int] = []

    def camera() -> Iterator[Picture]:
        for seed in itertools.count():
            taken.append(seed)
            yield good(seed)

    stream = detector.stream(camera())
    first = [next(stream) for _ in range(3)]
    stream.close()
    assert all(isinstance(result, Prediction) for result in first)
    assert len(taken) < 50


def test_an_error_of_the_source_is_the_readers(detector: Detector) -> None:
    def camera() -> Iterator[Picture]:
        yield good(0)
        raise RuntimeError("unplugged")

    with pytest.raises(RuntimeError, match="unplugged"):
        list(detector.stream(camera()))


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


def prediction_of(frame_map: NDArray[np.float32], threshold: float) -> Prediction:
    """A prediction with this anomaly map."""
    edge = len(frame_map)
    return Prediction(
        source="array",
        score=1.0,
        percentile=50.0,
        verdict="good",
        threshold=2.0,
        map_threshold=threshold,
        frame_map=frame_map,
        height=edge,
        width=edge,
        resize=edge,
        crop=None,
        comparison=None,  # type: ignore[arg-type]
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


# Few pictures, equal pictures


def test_one_picture_works_and_says_what_it_cannot_promise() -> None:
    held = fitted([good(0)])
    assert math.isnan(held.threshold_)
    assert held.notes_ == [note for note in held.notes_ if note.startswith("1 good picture")]
    assert len(held.notes_) == 1
    for picture in (good(1), defective(1)):
        prediction = held.predict(picture)
        assert prediction.verdict == "unsure"
        assert math.isnan(prediction.percentile)
        assert prediction.regions == ()
        assert np.isfinite(prediction.anomaly_map).all()
    assert held.score(defective(1)) > held.score(good(1))


@pytest.mark.parametrize("count", [2, 4])
def test_few_pictures_work_and_say_what_they_cannot_promise(count: int) -> None:
    held = fitted(good_pictures(count))
    assert math.isfinite(held.threshold_)
    assert any("rough guess" in note for note in held.notes_)
    assert held.score(defective(1)) > held.score(good(1))
    assert held.predict(defective(1)).verdict == "defect"


def test_enough_pictures_need_no_note() -> None:
    assert fitted(good_pictures(25), false_positive_rate=0.05).notes_ == []


@pytest.mark.parametrize("count", [2, 4, 20])
@pytest.mark.parametrize("flat", [False, True])
def test_copies_of_one_picture_still_find_a_defect(count: int, flat: bool) -> None:
    # A threshold that one picture left out of its own copies would set must not hide defects.
    picture = np.full((64, 64, 3), 128, np.uint8) if flat else good(0)
    broken = picture.copy()
    broken[DEFECT] = 255
    held = fitted([picture] * count)
    assert held.score(picture) < 0.01 * held.score(broken)
    assert held.threshold_ < 0.1 * held.score(broken)
    assert held.predict(broken).verdict == "defect"
    assert held.predict(picture).verdict == "good"


# Save and load


def test_a_loaded_detector_scores_bit_by_bit_the_same(detector: Detector, bundle: Path) -> None:
    loaded = fapm.load(bundle)
    asked = [good(80), defective(80), good(81), defective(82), good(83)]
    for ours, theirs in zip(detector.predict(asked), loaded.predict(asked), strict=True):
        assert ours.score == theirs.score
        assert ours.percentile == theirs.percentile
        assert ours.verdict == theirs.verdict
        assert ours.comparison == theirs.comparison
        assert (ours.threshold, ours.map_threshold) == (theirs.threshold, theirs.map_threshold)
        np.testing.assert_array_equal(ours.anomaly_map, theirs.anomaly_map)


def test_a_loaded_detector_knows_what_the_saved_one_knew(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"")
    held = fitted([*good_pictures(4), tmp_path / "broken.png"], crop=48, layers=("blocks.2",))
    held.save(tmp_path / "part.fapm")
    loaded = Detector.load(tmp_path / "part.fapm", max_pixels=5000)
    assert loaded.max_pixels == 5000
    assert loaded.config == held.config
    assert loaded.notes_ == held.notes_
    assert repr(loaded) == repr(held)
    assert loaded.fitted_.pictures == held.fitted_.pictures
    assert loaded.fitted_.skipped == held.fitted_.skipped
    assert loaded.fitted_.thumbnails == held.fitted_.thumbnails
    assert loaded.fitted_.encoder.spec == held.fitted_.encoder.spec
    np.testing.assert_array_equal(
        loaded.fitted_.calibration.scores, held.fitted_.calibration.scores
    )


def test_one_picture_can_be_saved_and_loaded(tmp_path: Path) -> None:
    held = fitted([good(0)])
    held.save(tmp_path / "part.fapm")
    loaded = fapm.load(tmp_path / "part.fapm")
    assert math.isnan(loaded.threshold_)
    assert loaded.notes_ == held.notes_
    assert loaded.predict(good(1)).verdict == "unsure"


@pytest.mark.parametrize("overrides", [{}, {"weights": "random", "seed": 3}], ids=str)
def test_the_same_fit_gives_the_same_bytes(tmp_path: Path, overrides: dict[str, Any]) -> None:
    first = bundle_bytes(fitted(good_pictures(6), **overrides), tmp_path / "first.fapm")
    torch.manual_seed(1234)  # whatever else the program has drawn
    second = bundle_bytes(fitted(good_pictures(6), **overrides), tmp_path / "second.fapm")
    assert first == second


def test_a_bundle_says_nothing_of_the_machine_it_was_made_on(tmp_path: Path) -> None:
    bundles = []
    for machine in ("here", "elsewhere"):
        pictures = tmp_path / machine / "good"
        pictures.mkdir(parents=True)
        for number, picture in enumerate(good_pictures(4)):
            Image.fromarray(picture).save(pictures / f"{number}.png")
        (pictures / "broken.png").write_bytes(b"")
        bundles.append(bundle_bytes(fitted(pictures), tmp_path / f"{machine}.fapm"))
    assert bundles[0] == bundles[1]
    assert str(tmp_path).encode() not in bundles[0]


def test_saving_what_was_loaded_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    assert bundle_bytes(fapm.load(bundle), tmp_path / "again.fapm") == bundle.read_bytes()


def test_a_bundle_needs_neither_weights_file_nor_training_pictures(tmp_path: Path) -> None:
    encoder = Detector(CONFIG).fit(good_pictures(2)).fitted_.encoder
    weights, pictures = tmp_path / "lite0.safetensors", tmp_path / "good"
    pictures.mkdir()
    for number, picture in enumerate(good_pictures(4)):
        Image.fromarray(picture).save(pictures / f"{number}.png")
    state = {k: v.contiguous() for k, v in encoder.network.state_dict().items()}
    safetensors.torch.save_file(state, weights)
    held = fitted(pictures, weights=str(weights))
    held.save(tmp_path / "part.fapm")
    expected = held.score(defective(1))
    weights.unlink()
    for path in pictures.iterdir():
        path.unlink()
    loaded = fapm.load(tmp_path / "part.fapm")
    assert loaded.score(defective(1)) == expected
    assert loaded.predict(defective(1)).comparison.thumbnail is not None


def test_without_thumbnails_no_picture_travels(tmp_path: Path, detector: Detector) -> None:
    held = fitted(good_pictures(), thumbnails=False)
    small = bundle_bytes(held, tmp_path / "small.fapm")
    _, parts = read_archive(tmp_path / "small.fapm")
    assert set(parts) == {"encoder.safetensors", "memory.safetensors"}
    assert len(small) < len(bundle_bytes(detector, tmp_path / "large.fapm"))
    for held_or_loaded in (held, fapm.load(tmp_path / "small.fapm")):
        assert held_or_loaded.predict(good(1)).comparison.thumbnail is None
        assert held_or_loaded.score(good(1)) == detector.score(good(1))


def test_saving_replaces_a_file_whole_and_leaves_nothing_else(
    detector: Detector, tmp_path: Path
) -> None:
    path = tmp_path / "part.fapm"
    path.write_text("an older file")
    detector.save(str(path))
    assert [child.name for child in tmp_path.iterdir()] == ["part.fapm"]
    assert fapm.load(str(path)).threshold_ == detector.threshold_


def test_saving_where_there_is_no_folder(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such directory"):
        detector.save(tmp_path / "nowhere" / "part.fapm")


def test_loading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file"):
        fapm.load(tmp_path / "part.fapm")


def test_the_manifest_says_what_is_inside(bundle: Path, detector: Detector) -> None:
    manifest, parts = read_archive(bundle)
    assert Config.create(**manifest["config"]) == CONFIG
    assert manifest["encoder"]["sha256"] == detector.fitted_.encoder.digest()
    assert manifest["calibration"]["threshold"] == detector.threshold_
    for layer, bank in zip(manifest["layers"], detector.fitted_.banks, strict=True):
        assert layer["keys"] == len(bank.keys)
        assert layer["vectors"] == COUNT * bank.height * bank.width
        assert layer["distance_unit"] == bank.unit
    assert len(parts) == 2 + len(detector.fitted_.thumbnails)


# Hostile bundles: every checksum is right, and what they say is wrong. Each must be refused when it
# is loaded, in one line, and not crash or call defects good later.


class Forgery:
    """The honest bundle, taken apart."""

    def __init__(self, path: Path) -> None:
        self.manifest, self.parts = read_archive(path)
        self.memory = safetensors.torch.load(self.parts["memory.safetensors"])
        self.weights = safetensors.torch.load(self.parts["encoder.safetensors"])

    def write(self, path: Path) -> None:
        parts = {
            **self.parts,
            "memory.safetensors": safetensors.torch.save(
                {name: tensor.contiguous() for name, tensor in self.memory.items()}
            ),
            "encoder.safetensors": safetensors.torch.save(self.weights),
        }
        write_archive(path, self.manifest, parts)


def refuse(forgery: Forgery, path: Path) -> None:
    forgery.write(path)
    with pytest.raises(BundleError) as caught:
        fapm.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400


def test_the_forger_is_able_to_write_an_honest_bundle(bundle: Path, tmp_path: Path) -> None:
    Forgery(bundle).write(tmp_path / "part.fapm")
    assert (tmp_path / "part.fapm").read_bytes() == bundle.read_bytes()


MEMORY: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "a key too few": ("0.keys", lambda t: t[:-1]),
    "a channel too few": ("0.keys", lambda t: t[:, :-1]),
    "keys in one line": ("0.keys", lambda t: t.flatten()),
    "keys in float64": ("0.keys", lambda t: t.double()),
    "keys in float16": ("0.keys", lambda t: t.half()),
    "keys of integers": ("0.keys", lambda t: t.long()),
    "keys that are no numbers": ("0.keys", lambda t: t * math.nan),
    "one infinite key": ("0.keys", lambda t: t.index_fill(0, torch.tensor([3]), math.inf)),
    "offsets backwards": ("0.offsets", lambda t: t.flip(0)),
    "offsets beyond the keys": ("0.offsets", lambda t: t * 2),
    "an offset too few": ("0.offsets", lambda t: t[:-1]),
    "offsets that start late": ("0.offsets", lambda t: t.index_fill(0, torch.tensor([0]), 1)),
    "an empty patch": ("0.offsets", lambda t: torch.cat([t[:1], t[:1], t[2:]])),
    "offsets of floats": ("0.offsets", lambda t: t.float()),
    "pictures that do not exist": ("0.pictures", lambda t: t + 100),
    "pictures before the first": ("0.pictures", lambda t: t - 100),
    "pictures of floats": ("0.pictures", lambda t: t + 0.5),
    "a picture too few": ("1.pictures", lambda t: t[:-1]),
    "cells outside the map": ("0.cells", lambda t: t + 1000),
    "cells of other patches": ("0.cells", lambda t: t.flip(0)),
    "a radius too few": ("0.radii", lambda t: t[:-1]),
    "a score too few": ("scores", lambda t: t[:-1]),
    "scores in a square": ("scores", lambda t: t.reshape(3, 4)),
    "scores that are no numbers": ("scores", lambda t: t * math.nan),
}


@pytest.mark.parametrize("forgery", MEMORY)
def test_tensors_that_contradict_the_rest_are_refused(
    forgery: str, bundle: Path, tmp_path: Path
) -> None:
    name, change = MEMORY[forgery]
    forged = Forgery(bundle)
    forged.memory[name] = change(forged.memory[name])
    refuse(forged, tmp_path / "part.fapm")


@pytest.mark.parametrize(
    "name", ["0.keys", "1.offsets", "0.pictures", "1.cells", "0.radii", "scores"]
)
def test_a_missing_tensor_is_refused(name: str, bundle: Path, tmp_path: Path) -> None:
    forged = Forgery(bundle)
    del forged.memory[name]
    refuse(forged, tmp_path / "part.fapm")


@pytest.mark.parametrize("part", ["memory.safetensors", "encoder.safetensors"])
@pytest.mark.parametrize("content", [b"", b"xx", b"\xff" * 100, None], ids=str)
def test_a_part_that_is_no_safetensors_is_refused(
    part: str, content: bytes | None, bundle: Path, tmp_path: Path
) -> None:
    manifest, parts = read_archive(bundle)
    path = tmp_path / "part.fapm"
    if content is None:
        del parts[part]
    else:
        parts[part] = content
    write_archive(path, manifest, parts)
    with pytest.raises(BundleError, match="not a usable bundle") as caught:
        fapm.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["thumbnails/abc.jpg", "thumbnails/000099.jpg", "stray.bin"])
def test_parts_nobody_refers_to_are_refused(name: str, bundle: Path, tmp_path: Path) -> None:
    manifest, parts = read_archive(bundle)
    path = tmp_path / "part.fapm"
    write_archive(path, manifest, {**parts, name: b"x"})
    with pytest.raises(BundleError):
        fapm.load(path)


WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "of another shape": lambda t: t[:1].contiguous() if t.ndim else t,
    "of another type": lambda t: t.half(),
    "that are no numbers": lambda t: t * math.nan,
    "that are not those fitted with": lambda t: t + 1,
}


@pytest.mark.parametrize("forgery", WEIGHTS)
def test_weights_that_are_not_the_encoders_are_refused(
    forgery: str, bundle: Path, tmp_path: Path
) -> None:
    """The manifest holds their sha256."""
    forged = Forgery(bundle)
    forged.weights = {name: WEIGHTS[forgery](tensor) for name, tensor in forged.weights.items()}
    refuse(forged, tmp_path / "part.fapm")


MANIFEST: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "no layers": (("layers",), []),
    "layers null": (("layers",), None),
    "a layer null": (("layers", 0), None),
    "a layer of text": (("layers", 1), "blocks.4"),
    "a unit below 0": (("layers", 0, "distance_unit"), -1.0),
    "a unit of 0": (("layers", 0, "distance_unit"), 0),
    "a unit of text": (("layers", 0, "distance_unit"), "x"),
    "a map one cell lower": (("layers", 0, "height"), 7),
    "a map twice as wide": (("layers", 0, "width"), 16),
    "a map of a million rows": (("layers", 0, "height"), 10**6),
    "a map of no cells": (("layers", 0, "height"), 0),
    "a map of negative height": (("layers", 0, "height"), -8),
    "a grid of 0": (("layers", 0, "grid"), 0),
    "another grid": (("layers", 0, "grid"), 3),
    "an encoder that is a list": (("encoder",), []),
    "an encoder null": (("encoder",), None),
    "an encoder nobody knows": (("encoder", "name"), "nonet"),
    "an encoder that is not the config's": (("encoder", "name"), "resnet18"),
    "an encoder that is a number": (("encoder", "name"), 18),
    "an encoder with a stray field": (("encoder", "flavour"), "sweet"),
    "one layer of two": (("encoder", "layers"), ["blocks.2"]),
    "a layer nobody knows": (("encoder", "layers"), ["blocks.2", "blocks.9"]),
    "frames of negative size": (("encoder", "input_size"), -64),
    "frames of another size": (("encoder", "input_size"), 96),
    "frames of text": (("encoder", "input_size"), "64"),
    "two means": (("encoder", "mean"), [0.5, 0.5]),
    "deviations of 0": (("encoder", "std"), [0.0, 0.0, 0.0]),
    "an interpolation nobody knows": (("encoder", "interpolation"), "lanczos"),
    "another digest": (("encoder", "sha256"), "0" * 64),
    "a config null": (("config",), None),
    "a config of another size": (("config", "resize"), 96),
    "a config with a crop": (("config", "crop"), 32),
    "a config not layer-wise": (("config", "layer_wise"), False),
    "a config with a bad value": (("config", "grid"), 0),
    "a config with a stray field": (("config", "flavour"), 1),
    "no pictures": (("pictures",), []),
    "a picture too few": (("pictures",), ["a"] * (COUNT - 1)),
    "a picture too many": (("pictures",), ["a"] * (COUNT + 1)),
    "pictures null": (("pictures",), None),
    "pictures in one text": (("pictures",), "a" * COUNT),
    "a calibration null": (("calibration",), None),
    "a calibration that is a list": (("calibration",), []),
    "a threshold of text": (("calibration", "threshold"), "high"),
    "a threshold that is a list": (("calibration", "threshold"), [1.0]),
    "an unsure band above the threshold": (("calibration", "unsure_threshold"), 1e9),
    "skipped null": (("skipped",), None),
    "skipped numbers": (("skipped",), [7]),
}


@pytest.mark.parametrize("forgery", MANIFEST)
def test_a_manifest_that_contradicts_the_parts_is_refused(
    forgery: str, bundle: Path, tmp_path: Path
) -> None:
    place, value = MANIFEST[forgery]
    forged = Forgery(bundle)
    inner: Any = forged.manifest
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    refuse(forged, tmp_path / "part.fapm")


@pytest.mark.parametrize(
    "place",
    [
        ("config",),
        ("encoder",),
        ("encoder", "name"),
        ("layers",),
        ("layers", 0, "grid"),
        ("calibration",),
        ("calibration", "map_threshold"),
        ("pictures",),
        ("skipped",),
    ],
    ids=str,
)
def test_a_manifest_with_something_missing_is_refused(
    place: tuple[str | int, ...], bundle: Path, tmp_path: Path
) -> None:
    forged = Forgery(bundle)
    inner: Any = forged.manifest
    for step in place[:-1]:
        inner = inner[step]
    del inner[place[-1]]
    refuse(forged, tmp_path / "part.fapm")
