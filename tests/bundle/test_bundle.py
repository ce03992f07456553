"""Save and load: the same detector, the same bytes, no trace of the machine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fapm
from fapm import Detector
from fapm.bundle import archive
from fapm.bundle import file as bundles
from fapm.bundle.archive import read_archive
from fapm.config import Config
from fapm.errors import BundleError, OutputError
from stripes import (
    CONFIG,
    COUNT,
    bundle_bytes,
    defective,
    fitted,
    good,
    good_pictures,
)

CHANGE = ("action", "pictures", "keys", "threshold", "when", "warnings")

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
    assert loaded.fitted_.baseline is not None
    assert held.fitted_.baseline is not None
    assert loaded.fitted_.baseline.digest == held.fitted_.baseline.digest


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


def test_memory_holds_what_a_file_holds(detector: Detector, bundle: Path) -> None:
    assert bundles.dumps(detector.fitted_) == bundle.read_bytes()
    assert bundles.dumps(bundles.loads(bundle.read_bytes())) == bundle.read_bytes()


def test_bytes_that_are_no_bundle_are_refused_in_one_line(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"^bundle: damaged bundle: .* is not what was saved"):
        bundles.loads(bundle.read_bytes().replace(b"JFIF", b"JFIX", 1))
    manifest, parts = read_archive(bundle)
    with pytest.raises(BundleError, match=r"^bundle: not a usable bundle \(names are not a list"):
        bundles.loads(archive.dumps({**manifest, "pictures": 7}, parts))


@pytest.mark.parametrize(
    ("changes", "extra", "reason"),
    [
        ({}, {"stray.bin": b""}, "unexpected or missing parts"),
        ({"remarks": [1]}, {}, "names are not a list of text"),
        ({"picture_size": [64]}, {}, "picture size missing"),
        ({"history": [dict.fromkeys(CHANGE, "x")]}, {}, "inconsistent history"),
    ],
    ids=["parts", "names", "size", "history"],
)
def test_what_is_wrong_with_a_bundle_is_said_plainly(
    changes: dict[str, Any], extra: dict[str, bytes], reason: str, bundle: Path
) -> None:
    manifest, parts = read_archive(bundle)
    with pytest.raises(BundleError, match=rf"not a usable bundle \({reason}\); fit it again"):
        bundles.loads(archive.dumps({**manifest, **changes}, {**parts, **extra}))


def test_a_bundle_needs_neither_weights_file_nor_training_pictures(tmp_path: Path) -> None:
    encoder = Detector(CONFIG).fit(good_pictures(2)).fitted_.encoder
    weights, pictures = tmp_path / "lite0.safetensors", tmp_path / "good"
    pictures.mkdir()
    for number, picture in enumerate(good_pictures(4)):
        Image.fromarray(picture).save(pictures / f"{number}.png")
    weights.write_bytes(encoder.files["encoder.safetensors"])
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
    assert set(parts) == {"encoder.onnx", "encoder.safetensors", "memory.safetensors"}
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
    encoder = detector.fitted_.encoder
    assert manifest["encoder"]["precision"] == encoder.precision == "fp32"
    assert [tuple(shape) for shape in manifest["encoder"]["shapes"]] == [*encoder.shapes]
    assert {name: parts[name] for name in encoder.files} == encoder.files
    assert manifest["calibration"]["threshold"] == detector.threshold_
    for layer, bank in zip(manifest["layers"], detector.fitted_.banks, strict=True):
        assert layer["keys"] == len(bank.keys)
        assert layer["vectors"] == COUNT * bank.height * bank.width
        assert layer["distance_unit"] == bank.unit
    assert len(parts) == 3 + len(detector.fitted_.thumbnails)
