"""Accuracy on real pictures. Skipped where they are absent; they never enter the project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fapm
from fapm.cli.studies.demo import load_solar_cells
from fapm.datasets.loading import load_dataset
from fapm.detector import Detector
from fapm.engines.base import Runtime
from fapm.inspection.drift import DriftMonitor
from fapm.measure.evaluate import Evaluation, evaluate
from fapm.pictures import codec

DATA = Path(__file__).parents[2] / "shared" / "data"
# The paper's frame and score.
CROP = {"resize": 256, "crop": 224, "neighbours": 4, "score_sigma": 0}

pytestmark = pytest.mark.slow


def judged(name: str, **knobs: object) -> tuple[Detector, Evaluation]:
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not here")
    data = load_dataset(folder)
    detector = fapm.fit([sample.path for sample in data.train], **knobs)  # type: ignore[arg-type]
    return detector, evaluate(detector, data.test)


@pytest.mark.parametrize(
    ("name", "knobs", "image_auroc", "pixel_auroc"),
    [
        ("mvtec/bottle", CROP, 0.999, 0.982),
        ("mvtec/transistor", CROP, 0.998, 0.983),
        ("magnetic_tile", CROP, 0.90, 0.86),
        ("screw", CROP, 0.93, None),
        ("mvtec/bottle", {}, 0.999, 0.984),
        ("mvtec/transistor", {}, 0.997, 0.985),
        ("magnetic_tile", {}, 0.935, 0.84),
        ("screw", {}, 0.955, None),
        ("magnetic_tile", {"preset": "accurate"}, 0.93, 0.84),
        ("screw", {"preset": "accurate"}, 0.985, None),
    ],
)
def test_accuracy(
    name: str, knobs: dict[str, object], image_auroc: float, pixel_auroc: float | None
) -> None:
    detector, found = judged(name, **knobs)
    assert found.image is not None
    assert found.image.auroc >= image_auroc
    if pixel_auroc is None:
        assert found.pixel is None
    else:
        assert found.pixel is not None
        assert found.pixel.auroc >= pixel_auroc
    assert not found.failures

    # The threshold was chosen for 1 % false alarms without a look at these pictures.
    assert found.counts is not None
    alarms = found.counts.false_positives / found.counts.good
    assert alarms <= 0.01 + 3 * np.sqrt(0.01 * 0.99 / found.counts.good)
    assert np.isfinite(detector.threshold_)


@pytest.mark.parametrize(
    ("name", "motion", "image_auroc"),
    [
        ("mvtec/bottle", "similarity", 0.997),
        ("mvtec/transistor", "similarity", 0.997),
        ("magnetic_tile", None, 0.935),
        ("screw", None, 0.955),
    ],
)
def test_auto_aligns_where_it_costs_nothing(
    name: str, motion: str | None, image_auroc: float
) -> None:
    detector, found = judged(name, align="auto")
    alignment = detector.fitted_.preparation.stage("align")
    assert (alignment and alignment.template.motion) == motion, detector.notes_
    assert found.image is not None
    assert found.image.auroc >= image_auroc


def test_defects_are_found_where_they_are() -> None:
    _, found = judged("mvtec/bottle")
    inside = []
    for number, mask in found.masks.items():
        result = found.results[number]
        assert isinstance(result, fapm.Prediction)
        row, column = np.unravel_index(result.frame_map.argmax(), result.frame_map.shape)
        inside.append(mask[max(0, row - 8) : row + 9, max(0, column - 8) : column + 9].any())
    assert len(inside) == 63
    assert np.mean(inside) >= 0.95


def test_solar_cells() -> None:
    pytest.importorskip("elpv_dataset")
    cells = load_solar_cells(seed=0)
    assert len(cells.train) == 300
    assert len(cells.test) == len(cells.samples) == 601
    rng = np.random.default_rng(0)
    kept = np.sort(rng.choice(601, 200, replace=False))
    detector = fapm.fit(cells.train)
    found = evaluate(
        detector, [cells.samples[i] for i in kept], pictures=[cells.test[i] for i in kept]
    )
    assert found.image is not None
    assert found.image.auroc >= 0.94


@pytest.mark.parametrize(
    "encoder", [{}, {"encoder": "wide_resnet50_2", "weights": "random"}], ids=["lite0", "wrn50"]
)
def test_every_engine_scores_real_pictures_alike(encoder: dict[str, str], tmp_path: Path) -> None:
    folder = DATA / "mvtec" / "bottle"
    if not folder.is_dir():
        pytest.skip("mvtec/bottle is not here")
    data = load_dataset(folder)
    pictures = [sample.path for sample in data.test][::12]
    normals = [sample.path for sample in data.train][:30]
    fapm.fit(normals, **encoder).save(tmp_path / "b.fapm")  # type: ignore[arg-type]
    said = {
        engine: fapm.load(tmp_path / "b.fapm", runtime=Runtime(engine=engine)).predict(pictures)  # type: ignore[arg-type]
        for engine in ("torch", "openvino", "onnxruntime")
    }
    for engine in ("openvino", "onnxruntime"):
        for ours, theirs in zip(said[engine], said["torch"], strict=True):
            assert ours.score == pytest.approx(theirs.score, rel=1e-3)
            assert ours.verdict == theirs.verdict


def test_drift_of_real_bottles() -> None:
    folder = DATA / "mvtec" / "bottle"
    if not folder.is_dir():
        pytest.skip("mvtec/bottle is not here")
    data = load_dataset(folder)
    normals = [sample.path for sample in data.train]
    detector = fapm.fit([path for number, path in enumerate(normals) if number % 3])
    good = [*normals[::3], *(s.path for s in data.test if s.label == 0)]
    bad = [s.path for s in data.test if s.label == 1][::12]
    usual = [good[i] for i in np.random.default_rng(0).permutation(len(good))]
    usual[10::20] = bad[: len(usual[10::20])]
    monitor = DriftMonitor(detector.fitted_.baseline)
    for _ in detector.stream(usual, drift=monitor):
        assert not monitor.state.alarm
    darker = [(codec.read_image(path) * 0.9).astype(np.uint8) for path in usual[:40]]
    for _ in detector.stream(darker, drift=monitor):
        if monitor.state.alarm:
            break
    assert monitor.state.cause == "light"
    assert monitor.state.since is not None
    assert abs(monitor.state.since - len(usual) - 1) <= 2


def test_real_bottles_in_less_light_are_good() -> None:
    folder = DATA / "mvtec" / "bottle"
    if not folder.is_dir():
        pytest.skip("mvtec/bottle is not here")
    data = load_dataset(folder)
    labels = np.array([sample.label for sample in data.test])
    darker = [(codec.read_image(sample.path) * 0.8).astype(np.uint8) for sample in data.test]

    def not_good(light: str) -> dict[int, float]:
        detector = fapm.fit([sample.path for sample in data.train], light=light)
        judged = np.array([p.verdict != "good" for p in detector.predict(darker)])
        return {label: float(judged[labels == label].mean()) for label in (0, 1)}

    assert not_good("none")[0] >= 0.9
    helped = not_good("gain")
    assert helped[0] <= 0.2
    assert helped[1] == 1
