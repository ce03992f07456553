"""A detector's graph as a file for other programs, proven on pictures."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fapm import rules
from fapm.bundle.fitted import Fitted
from fapm.encoder import openvino_core
from fapm.engines import openvino_engine as openvino
from fapm.errors import ConfigError, EngineError, OutputError
from fapm.graph.scored import OUTPUTS
from fapm.graph.whole import whole_model
from fapm.inspection.snapshot import Snapshot
from fapm.plain import finite
from fapm.system.files import make_directory, replaced_when_complete
from fapm.system.imports import needed_for

Format = Literal["onnx", "openvino"]

# Scores of the file may differ from the detector's by this share, and no more.
TOLERANCE = 1e-3
# What OpenVINO 2024.6 reads.
_OPSET_2024_6 = 15
# Pictures to prove it on, at most.
PROOF = 32


def export(now: Snapshot, kind: str, folder: Path, frames: Sequence[NDArray[np.uint8]]) -> float:
    """Write ``model.onnx``, or ``model.xml`` and ``model.bin``, with ``detector.json`` beside.

    The exported file is run and compared before it is moved into place; one that disagrees is
    discarded.

    Parameters
    ----------
    kind
        ``onnx`` or ``openvino``.
    frames
        to compare scores on, RGB uint8 ``[S, S, 3]`` each.

    Returns
    -------
    largest relative difference of a score.

    Raises
    ------
    ConfigError
        Unknown ``kind``.
    EngineError
        The precision cannot be written in this format, its runtime is not installed, or frames are
        registered or made as bright as others before they are scored.
    OutputError
        ``folder`` cannot be written, or what was written scores otherwise.
    """
    if kind not in get_args(Format):
        raise ConfigError(f"to: unknown {kind!r}; choose one of {', '.join(get_args(Format))}")
    fitted = now.fitted
    if fitted.encoder.precision == "bf16" or (kind, fitted.encoder.precision) == ("onnx", "int8"):
        raise EngineError(
            f"precision: a bundle fitted with {fitted.encoder.precision} cannot be exported to "
            f"{kind}; fit again with --precision {'fp32' if kind == 'onnx' else 'fp32 or int8'}"
        )
    for line in rules.refused("export", (), [stage.name for stage in fitted.preparation.stages]):
        raise EngineError(f"{line} and fit again")
    make_directory(folder)
    expected = now.engine.run(frames).scores
    try:
        with tempfile.TemporaryDirectory(dir=folder) as unproven:
            model = _write(fitted, kind, Path(unproven))
            said = _run_onnx(model, frames) if kind == "onnx" else _run_openvino(model, frames)
            difference = float(np.max(np.abs(said - expected) / np.maximum(expected, 1e-9)))
            if not difference <= TOLERANCE:  # nor NaN
                raise OutputError(
                    f"{folder}: nothing exported: the {kind} file scores {difference:.2g} off the "
                    f"detector, more than {TOLERANCE:g}; try another version of its runtime"
                )
            for part in Path(unproven).iterdir():
                part.replace(folder / part.name)
        about = {**describe(fitted), "runtime": _least_runtime(folder / model.name)}
        with replaced_when_complete(folder / "detector.json") as file:
            file.write((json.dumps(about, indent=2) + "\n").encode())
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return difference


def describe(fitted: Fitted) -> dict[str, Any]:
    """Facts that a program needs besides the graph, to make frames and to judge scores."""
    config, layout, levels = fitted.config, fitted.layout, fitted.calibration
    height, width = layout.shape
    drawn = None if fitted.roi is None else fitted.roi.drawn_on
    return {
        "input": f"frame: uint8 [1, {height}, {width}, 3], RGB",
        "batch": 1,  # a graph reshaped to more frames still says what it says of one
        "picture": layout.picture or drawn,  # the shape that pictures must have, or None
        "resize": list(layout.canvas),
        "crop": config.crop,
        "interpolation": fitted.encoder.spec.interpolation,
        "outputs": list(OUTPUTS),
        "threshold": finite(levels.threshold),
        "unsure_threshold": finite(levels.unsure_threshold),
        "map_threshold": finite(levels.map_threshold),
        "precision": fitted.encoder.precision,
    }


def sample_frames(fitted: Fitted, count: int = 8) -> list[NDArray[np.uint8]]:
    """Seeded frames of blocks and noise, RGB uint8 ``[h, w, 3]``."""
    (height, width), rng = (
        fitted.layout.shape,
        np.random.default_rng(fitted.config.seed),
    )
    frames = []
    for _ in range(count):
        blocks = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3))
        picture = np.kron(blocks, np.ones((16, 16, 1)))[:height, :width]
        noisy = picture + rng.normal(scale=10, size=picture.shape)
        frames.append(noisy.clip(0, 255).astype(np.uint8))
    return frames


def _write(fitted: Fitted, kind: str, folder: Path) -> Path:
    if kind == "onnx":
        path = folder / "model.onnx"
        path.write_bytes(whole_model(fitted).SerializeToString())
        return path
    path = folder / "model.xml"
    model = openvino.join(openvino.read_frame_encoder(fitted), openvino.read_search(fitted))
    openvino_core.save_model(model, path)
    return path


def _least_runtime(model: Path) -> str:
    """The oldest runtime that reads a file; those named were tried (``scripts/``)."""
    if model.suffix == ".onnx":
        return "ONNX Runtime 1.17 or newer"
    operations = re.findall(r'version="opset(\d+)"', model.read_text(encoding="utf-8"))
    old = max(map(int, operations)) <= _OPSET_2024_6
    return f"OpenVINO {'2024.6' if old else openvino_core.ov.__version__.split('-')[0]} or newer"


def _run_onnx(path: Path, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    with needed_for("export: the file is proven first", "onnxruntime"):
        import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores = [session.run(["scores"], {"frame": frame[None]})[0] for frame in frames]
    return np.concatenate(scores)


def _run_openvino(path: Path, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    # f32 where a model is not quantised: by default OpenVINO rounds to bf16 where it can.
    model = openvino_core.core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([np.array(model(frame[None])["scores"]) for frame in frames])
