"""The preset ``paper`` at its full size, from files to verdicts, against the paper in float64.

Its ImageNet weights need a network, so the weights are random, which changes nothing about
exactness. Torch computes the encoder's layers in float64; everything before (resize, crop,
normalisation) and after them (:mod:`reference`) is written here once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import reference
from fapm import Config, Detector, Prediction
from fapm.bundle.calibration import Calibration, calibrate
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from reference import Floats

pytestmark = pytest.mark.slow

CONFIG = Config.create("paper", weights="random")
NORMAL = 8
# What the paper and the weights' publisher fix.
RESIZE, CROP, GRID, RATIO, FAR, NEIGHBOURS, SIGMA = 256, 224, 7, 0.1, 0.5, 4, 4.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Paper:
    """What float64 makes of the same files."""

    memories: list[reference.Memory]
    judged: reference.Judged
    calibration: Calibration


def save(path: Path, seed: int, *, scratched: bool = False) -> Path:
    """A part of 320 x 288 pixels, its left third another in each picture: patches near and far."""
    blocks = np.random.default_rng(0).integers(60, 200, (9, 10, 3))
    rng = np.random.default_rng(1 + seed)
    blocks[:, :3] = rng.integers(0, 256, (9, 3, 3))
    part = np.kron(blocks, np.ones((32, 32, 1)))
    picture = part + rng.normal(scale=10, size=part.shape)
    if scratched:
        picture[120:132, 60:260] = 250
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)
    return path


def features(files: list[Path]) -> list[Floats]:
    """Locally aware features of layer2 and layer3, float64 ``[N, C, H, W]``."""
    network = timm.create_model("wide_resnet50_2", features_only=True, out_indices=(2, 3))
    weights = create_encoder(CONFIG).network.state_dict()
    network.load_state_dict(weights)
    network.eval().double()
    margin = (RESIZE - CROP) // 2
    frames = []
    for file in files:
        resized = Image.open(file).resize((RESIZE, RESIZE), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)[margin:-margin, margin:-margin] / 255
        frames.append(((pixels - MEAN) / STD).transpose(2, 0, 1))
    with torch.inference_mode():
        layers = network(torch.from_numpy(np.stack(frames)))
    return [reference.average_pool(layer.numpy()) for layer in layers]


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("good")
    return [save(folder / f"{number}.png", number) for number in range(NORMAL)]


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("inspected")
    return [save(folder / "good.png", 100), save(folder / "scratch.png", 101, scratched=True)]


@pytest.fixture(scope="module")
def paper(normal: list[Path], inspected: list[Path]) -> Paper:
    layers = features(normal)
    memories = [
        reference.memorise(
            layer, grid=GRID, ratio=RATIO, sampling="near-far", distance_unit="one",
            far_threshold=FAR,
        )
        for layer in layers
    ]  # fmt: skip
    held_out = reference.judge(
        layers, memories, count=NEIGHBOURS, size=CROP, sigma=SIGMA, without_pictures=range(NORMAL)
    )
    judged = reference.judge(
        features(inspected), memories, count=NEIGHBOURS, size=CROP, sigma=SIGMA
    )
    calibration = calibrate(
        held_out.scores,
        held_out.maps.max(axis=(1, 2)),
        false_positive_rate=0.01,
        unsure_rate=0.05,
    )
    return Paper(memories, judged, calibration)


@pytest.fixture(scope="module", params=["openvino", "torch"])
def detector(request: pytest.FixtureRequest, normal: list[Path]) -> Detector:
    return Detector(CONFIG, runtime=Runtime(engine=request.param)).fit(normal)


@pytest.fixture(scope="module")
def predictions(detector: Detector, inspected: list[Path]) -> list[Prediction]:
    return detector.predict(inspected)


def test_the_preset_is_what_the_paper_says() -> None:
    assert CONFIG.encoder == "wide_resnet50_2.tv_in1k"
    assert (CONFIG.resize, CONFIG.crop, CONFIG.grid, CONFIG.ratio) == (RESIZE, CROP, GRID, RATIO)
    assert (CONFIG.sampling, CONFIG.distance_unit, CONFIG.far_threshold) == ("near-far", "one", FAR)
    assert (CONFIG.neighbours, CONFIG.sigma, CONFIG.radius) == (NEIGHBOURS, SIGMA, 0)
    assert (CONFIG.layer_wise, CONFIG.budget_pictures, CONFIG.max_keys) == (True, None, None)


def test_the_same_keys_are_memorised(detector: Detector, paper: Paper) -> None:
    assert detector.fitted_.encoder.spec.layers == ("layer2", "layer3")
    for bank, memory in zip(detector.fitted_.banks, paper.memories, strict=True):
        assert np.diff(bank.offsets).tolist() == [len(keys) for keys in memory.keys]
        assert bank.pictures.tolist() == np.concatenate(memory.pictures).tolist()
        assert bank.cells.tolist() == np.concatenate(memory.cells).tolist()
        np.testing.assert_allclose(bank.radii, memory.radii, rtol=1e-4)
        expected = np.concatenate(memory.keys)
        np.testing.assert_allclose(bank.keys, expected, atol=1e-5 * np.abs(expected).max())


def test_there_were_near_patches_and_far_ones(paper: Paper) -> None:
    """Otherwise the tests around this one would not see the paper's adaptive sampling."""
    counts = [len(keys) for keys in paper.memories[0].keys]
    share = reference.share(RATIO, NORMAL * 4 * 4)
    assert set(counts) == {share, 2 * share}


def test_scores_maps_and_worst_cells_are_equal(predictions: list[Prediction], paper: Paper) -> None:
    for number, (prediction, expected) in enumerate(
        zip(predictions, paper.judged.maps, strict=True)
    ):
        assert prediction.score == pytest.approx(paper.judged.scores[number], rel=1e-4)
        np.testing.assert_allclose(prediction.frame_map, expected, atol=1e-4 * expected.max())
        y, x = divmod(int(paper.judged.cells[number]), 28)
        margin, cell = (RESIZE - CROP) / 2 / RESIZE, CROP / 28 / RESIZE
        here = prediction.comparison.here
        assert (here.x, here.y) == pytest.approx((margin + x * cell, margin + y * cell))


def test_the_map_is_nothing_outside_the_crop(predictions: list[Prediction]) -> None:
    whole = predictions[1].anomaly_map
    assert whole.shape == (288, 320)
    assert whole[:18].max() == whole[:, :20].max() == 0 < whole[19:-19, 21:-21].min()


def test_thresholds_and_verdicts_are_equal(
    detector: Detector, predictions: list[Prediction], paper: Paper
) -> None:
    calibration = detector.fitted_.calibration
    np.testing.assert_allclose(calibration.scores, paper.calibration.scores, rtol=1e-4)
    for name in ("threshold", "unsure_threshold", "map_threshold"):
        assert getattr(calibration, name) == pytest.approx(
            getattr(paper.calibration, name), rel=1e-4
        )
    verdicts = [paper.calibration.verdict(score) for score in paper.judged.scores]
    assert [prediction.verdict for prediction in predictions] == verdicts
