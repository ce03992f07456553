"""Regions of interest drawn on few pictures, for tests of fits and of updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import reference
from fapm.bundle.fitted import Fitted
from fapm.config import Config
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder, open_engine
from fapm.graph.reference import aggregate
from framing import prepare

Mask = NDArray[np.bool_]
ENGINES = ("torch", "openvino", "onnxruntime")


def square(edge: int, rows: slice, columns: slice) -> Mask:
    mask = np.zeros((edge, edge), np.bool_)
    mask[rows, columns] = True
    return mask


def asked(fitted: Fitted, pictures: list[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
    """Aggregated features, per layer ``[B, C, H, W]``."""
    runner = open_encoder(fitted.encoder, Runtime())
    features = runner.features(frames_of(fitted, pictures))
    layers = aggregate([torch.from_numpy(f) for f in features], fitted.config)
    return [layer.numpy().astype(np.float64) for layer in layers]


def frames_of(fitted: Fitted, pictures: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    config, how = fitted.config, fitted.encoder.spec.interpolation
    return [prepare(p, config.resize, config.crop, how) for p in pictures]


def judge(
    config: Config, roi: Mask, held: list[reference.Memory], layers: list[Any], **how: Any
) -> reference.Judged:
    return reference.judge(
        layers,
        held,
        count=config.neighbours,
        size=config.input_size,
        sigma=config.sigma * config.input_size / 224,
        score_sigma=config.score_sigma,
        radius=config.radius,
        upsampling=config.coarse_upsampling,
        roi=roi,
        **how,
    )


def check_engines(
    fitted: Fitted, frames: list[NDArray[np.uint8]], judged: reference.Judged, roi: Mask
) -> None:
    for engine in ENGINES:
        said = open_engine(fitted, Runtime(engine=engine)).run(frames)  # type: ignore[arg-type]
        np.testing.assert_allclose(said.scores, judged.scores, rtol=1e-3)
        np.testing.assert_array_equal(said.cells, judged.cells)
        np.testing.assert_allclose(said.maps, judged.maps, atol=1e-3 * judged.maps.max())
        assert (said.maps[:, ~roi] == 0).all()
        for layer, bank in enumerate(fitted.banks):
            assert (said.keys[:, layer] < len(bank.keys)).all()
