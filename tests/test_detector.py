"""The detector people hold: fit, predict, stream; few and equal pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fapm
from fapm import Detector, Failure, Prediction
from fapm.config import Config
from fapm.errors import DatasetError, ImageError, NotFittedError
from stripes import (
    CONFIG,
    COUNT,
    DEFECT,
    Picture,
    defective,
    fitted,
    good,
    good_pictures,
    keys_of,
)

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
        assert np.array_equal(ours, theirs)
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
    with pytest.raises(
        ImageError, match=rf"^array: {type(source).__name__.removesuffix('Type')} is not"
    ):
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
        assert np.array_equal(ours.keys, theirs.keys)
        assert np.array_equal(ours.pictures, theirs.pictures)


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
        lambda d, path: d.warm(),
        lambda d, path: d.save(path),
        lambda d, path: d.threshold_,
        lambda d, path: d.notes_,
        lambda d, path: d.fitted_,
    ],
    ids=["predict", "score", "stream", "warm", "save", "threshold_", "notes_", "fitted_"],
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
@pytest.mark.parametrize("score_sigma", [0, 1])
def test_copies_of_one_picture_still_find_a_defect(
    score_sigma: float, count: int, flat: bool
) -> None:
    # A threshold that one picture left out of its own copies would set must not hide defects.
    picture = np.full((64, 64, 3), 128, np.uint8) if flat else good(0)
    broken = picture.copy()
    broken[DEFECT] = 255
    held = fitted([picture] * count, score_sigma=score_sigma)
    assert held.score(picture) < 0.01 * held.score(broken)
    assert held.threshold_ < 0.1 * held.score(broken)
    assert held.predict(broken).verdict == "defect"
    assert held.predict(picture).verdict == "good"
