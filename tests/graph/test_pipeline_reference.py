"""From pictures to thresholds: what fit and the graph give equals the paper in float64.

Only the encoder is taken as it is; everything behind its features is computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import reference
from fapm.bundle.calibration import calibrate
from fapm.bundle.fitted import Fitted
from fapm.config import Config
from fapm.encoder.spec import EncoderSpec
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder, open_engine
from fapm.fitting import fit as fitting
from fapm.frames.preparation import Frame
from fapm.graph.reference import ScoredTensors, Search, aggregate
from framing import read_frame

Pictures = list[NDArray[np.uint8]]

NORMAL = 10
weighted = partial(Config.create, neighbours=4)  # the harder score: every rank counts

CASES: dict[str, Config] = {
    # The encoders and input sizes.
    "paper": Config.create("paper", weights="random", resize=64, crop=56),
    "fast": Config.create(resize=64),
    "grid does not divide 12 and 6 cells": weighted(resize=96),
    "grid does not divide 11 and 6 cells": weighted(resize=88, grid=5),
    "stride 14": weighted(
        encoder="vit_small_patch14_dinov2",
        weights="random",
        layers=("blocks.0", "blocks.1"),
        resize=70,
        grid=3,
    ),
    "one layer": weighted(resize=64, layers=("blocks.2",)),
    "three layers": weighted(resize=64, layers=("blocks.1", "blocks.4", "blocks.2"), grid=4),
    # The paper's ablation.
    "not patch-wise": weighted(resize=64, grid=1),
    "not layer-wise": weighted(resize=64, layer_wise=False),
    "not layer-wise, no size divides": weighted(
        encoder="resnet18",
        weights="random",
        resize=56,
        layers=("layer2", "layer3", "layer1"),
        layer_wise=False,
        grid=5,
    ),
    "plain": weighted(resize=64, sampling="none"),
    # Every other knob.
    "plain, unit 1": weighted(resize=64, sampling="none", distance_unit="one", grid=4),
    "near-far": weighted(resize=64, sampling="near-far", grid=4),
    "near-far, low threshold": weighted(resize=64, sampling="near-far", far_threshold=0.45),
    "equal radius, unit 1": weighted(resize=64, distance_unit="one", grid=3),
    "ratio above the bound of 40 %": weighted(resize=64, ratio=0.55, grid=4),
    "wider search": weighted(resize=64, radius=1),
    "widest search": weighted(resize=64, radius=3, grid=4),
    "four neighbours": weighted(resize=64),
    "more neighbours than keys": weighted(resize=64, neighbours=12, sampling="none"),
    "row order": weighted(resize=64, coarse_upsampling="row-order"),
    "no smoothing": weighted(resize=64, sigma=0),
    "wide smoothing": weighted(resize=64, sigma=30),
    "score of the cell's surroundings": weighted(resize=64, score_sigma=1),
    "score of wide surroundings": weighted(resize=64, score_sigma=2.5, radius=1),
}


@dataclass(frozen=True)
class Case:
    """Everything of one configuration, as it is and as it should be."""

    config: Config
    fitted: Fitted
    normal: list[Tensor]  # features of the normal pictures, per layer
    asked: list[Tensor]  # of the inspected ones
    raw: list[Tensor]  # as the encoder gives them
    frames: Pictures
    memories: list[reference.Memory]

    def judge(self, features: list[Tensor], without: range | None = None) -> reference.Judged:
        return reference.judge(
            [as_float64(f) for f in features],
            self.memories,
            count=self.config.neighbours,
            size=self.config.input_size,
            sigma=self.config.sigma * self.config.input_size / 224,
            score_sigma=self.config.score_sigma,
            radius=self.config.radius,
            upsampling=self.config.coarse_upsampling,
            without_pictures=without,
        )


def as_float64(features: Tensor) -> NDArray[np.float64]:
    return features.numpy().astype(np.float64)


def pictures_of_a_part(seed: int, count: int) -> Pictures:
    """Blocks of colour that every picture has, and noise of its own."""
    blocks = np.random.default_rng(7).integers(60, 200, size=(8, 8, 3))
    part = np.kron(blocks, np.ones((12, 12, 1)))
    noise = np.random.default_rng(seed).normal(scale=15, size=(count, *part.shape))
    return list(np.clip(part + noise, 0, 255).astype(np.uint8))


def inspected_pictures() -> Pictures:
    good, scratched = pictures_of_a_part(1, 2)
    scratched[40:44, 10:80] = 255
    return [good, scratched]


def frames_of(pictures: Pictures, case: Config, spec: EncoderSpec) -> Pictures:
    frames = [
        read_frame(picture, case, spec.interpolation, max_pixels=10**6) for picture in pictures
    ]
    assert all(isinstance(frame, Frame) for frame in frames)
    return [frame.pixels for frame in frames]  # type: ignore[union-attr]


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request: pytest.FixtureRequest) -> Case:
    config = CASES[request.param]
    encoder = create_encoder(config)
    pictures = pictures_of_a_part(0, NORMAL)
    fitted = fitting.fit(pictures, config, encoder, Runtime())
    runner = open_encoder(fitted.encoder, Runtime())
    frames = frames_of(inspected_pictures(), config, encoder.spec)
    raw = [torch.from_numpy(f) for f in runner.features(frames)]
    features = runner.features(frames_of(pictures, config, encoder.spec))
    normal = aggregate([torch.from_numpy(f) for f in features], config)
    memories = [
        reference.memorise(
            as_float64(layer),
            grid=config.grid,
            ratio=config.ratio,
            sampling=config.sampling,
            distance_unit=config.distance_unit,
            far_threshold=config.far_threshold,
        )
        for layer in normal
    ]
    return Case(config, fitted, normal, aggregate(raw, config), raw, frames, memories)


@pytest.fixture(scope="module")
def scored(case: Case) -> ScoredTensors:
    return Search(case.config, case.fitted.banks)(case.asked)


def assert_close_to(actual: Any, expected: NDArray[np.float64]) -> None:
    """To 1e-4 of the value, and of the largest value where a map is near 0."""
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_features_are_pooled_and_where_asked_concatenated(case: Case) -> None:
    layers = [reference.average_pool(as_float64(f)) for f in case.raw]
    expected = layers if case.config.layer_wise else [reference.concatenate(layers)]
    assert len(case.asked) == len(expected)
    for features, layer in zip(case.asked, expected, strict=True):
        np.testing.assert_allclose(features.numpy(), layer, rtol=1e-5, atol=1e-5 * layer.std())


def test_the_same_keys_are_memorised(case: Case) -> None:
    for bank, memory in zip(case.fitted.banks, case.memories, strict=True):
        assert bank.offsets.tolist() == np.cumsum([0, *map(len, memory.keys)]).tolist()
        assert bank.pictures.tolist() == np.concatenate(memory.pictures).tolist()
        assert bank.cells.tolist() == np.concatenate(memory.cells).tolist()
        np.testing.assert_allclose(bank.keys, np.concatenate(memory.keys), rtol=1e-6)
        assert bank.unit == pytest.approx(memory.unit, rel=1e-4)
        assert_close_to(bank.radii, np.array(memory.radii))


def test_scores_and_worst_cells_are_equal(case: Case, scored: ScoredTensors) -> None:
    judged = case.judge(case.asked)
    np.testing.assert_allclose(scored.scores.numpy(), judged.scores, rtol=2e-4)
    np.testing.assert_array_equal(scored.cells.numpy(), judged.cells)


def test_maps_are_equal(case: Case, scored: ScoredTensors) -> None:
    size = case.config.input_size
    assert scored.maps.shape == (2, size, size)
    assert_close_to(scored.maps.numpy(), case.judge(case.asked).maps)


def test_the_keys_named_are_the_nearest_to_the_worst_cell(
    case: Case, scored: ScoredTensors
) -> None:
    finest = max((m.numbers.shape for m in case.memories), key=lambda size: size[0] * size[1])
    upsampling = case.config.coarse_upsampling
    onto = {
        "nearest": reference.nearest_upsampling,
        "row-order": reference.row_order_upsampling,
    }[upsampling]
    for number, (features, memory) in enumerate(zip(case.asked, case.memories, strict=True)):
        distances, keys = reference.nearest_distances(
            as_float64(features), memory, count=1, radius=case.config.radius
        )
        height, width = memory.numbers.shape
        coarse_cell = onto(np.arange(height * width).reshape(height, width), *finest).ravel()
        for row, worst in enumerate(scored.cells.tolist()):
            cell = coarse_cell[worst]
            assert int(scored.keys[row, number]) == keys[row, cell, 0]
            assert float(scored.distances[row, number]) == pytest.approx(
                distances[row, cell, 0], rel=1e-4
            )


@pytest.mark.parametrize("engine", ["openvino", "torch", "onnxruntime"])
def test_every_engine_gives_the_papers_scores_and_maps(case: Case, engine: str) -> None:
    said = open_engine(case.fitted, Runtime(engine=engine)).run(case.frames)  # type: ignore[arg-type]
    judged = case.judge(case.asked)
    layers, size = len(case.fitted.banks), case.config.input_size
    assert [v.shape for v in said] == [(2,), (2, size, size), (2,), (2, layers), (2, layers)]
    assert [v.dtype for v in said] == [np.float32, np.float32, np.int64, np.float32, np.int64]
    np.testing.assert_allclose(said.scores, judged.scores, rtol=1e-3)
    np.testing.assert_array_equal(said.cells, judged.cells)
    np.testing.assert_allclose(said.maps, judged.maps, atol=1e-3 * judged.maps.max())
    expected = Search(case.config, case.fitted.banks)(case.asked)
    np.testing.assert_allclose(said.distances, expected.distances, rtol=1e-3)
    np.testing.assert_array_equal(said.keys, expected.keys)


def test_leave_one_out_scores_and_thresholds_are_equal(case: Case) -> None:
    judged = case.judge(case.normal, without=range(NORMAL))
    calibration = case.fitted.calibration
    # Where the softmax saturates (unit 1) a score is the small difference of large numbers.
    assert_close_to(calibration.scores, judged.scores)
    expected = calibrate(
        judged.scores,
        judged.maps.max(axis=(1, 2)),
        false_positive_rate=case.config.false_positive_rate,
        unsure_rate=case.config.alert_rate,
    )
    assert calibration.threshold == pytest.approx(expected.threshold, rel=1e-4)
    assert calibration.unsure_threshold == pytest.approx(expected.unsure_threshold, rel=1e-4)
    assert calibration.map_threshold == pytest.approx(expected.map_threshold, rel=1e-4)


def test_leave_one_out_in_small_steps_is_leave_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.create(resize=64)
    encoder = create_encoder(config)
    pictures = pictures_of_a_part(0, NORMAL)
    at_once = fitting.fit(pictures, config, encoder, Runtime()).calibration
    monkeypatch.setattr("fapm.training.leave_one_out._DISTANCES", 1)
    one_by_one = fitting.fit(pictures, config, encoder, Runtime()).calibration
    np.testing.assert_allclose(one_by_one.scores, at_once.scores, rtol=1e-5)
    assert one_by_one.map_threshold == pytest.approx(at_once.map_threshold, rel=1e-5)
