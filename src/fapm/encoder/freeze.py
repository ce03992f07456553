"""Turn a torch encoder into the graph that engines run, in the precision that will be deployed.

The encoder is quantised before the fit memorises features, because the memory must hold the
features of the encoder that will run.
"""

from __future__ import annotations

import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.encoder.network import Encoder
from fapm.encoder.spec import OPSET, FrozenEncoder, Precision
from fapm.errors import EncoderError, OutputError
from fapm.system.forks import Lock
from fapm.system.imports import import_quietly, needed_for

Frames = Sequence[NDArray[np.uint8]]

_quantising = Lock()


def freeze(
    encoder: Encoder, precision: Precision, frames: Frames = (), *, in_float: int = 0
) -> FrozenEncoder:
    """Convert the encoder to a graph.

    Parameters
    ----------
    frames
        normal frames, or tiles of them, RGB uint8 ``[h, w, 3]`` each, on which int8 is calibrated.
    in_float
        number of the first convolutions that stay in float with int8.

    Raises
    ------
    EncoderError
        The network cannot be written as a graph.
    EngineError
        NNCF, which does the quantisation, is not installed or cannot be loaded.
    """
    exported = export_onnx(encoder)
    shapes = feature_shapes(encoder)
    if precision == "fp32":
        files = {"encoder.onnx": exported, "encoder.safetensors": encoder.weights()}
    elif precision == "bf16":
        files = {"encoder.onnx": exported}
    else:
        files = quantise(exported, frames, in_float)
    return FrozenEncoder(encoder.spec, precision, shapes, files)


def export_onnx(encoder: Encoder) -> bytes:
    """Write the encoder in fp32 as an ONNX model; the same encoder gives the same bytes.

    The input is ``frame`` uint8 ``[1, h, w, 3]``. The outputs are ``features_0``, ``features_1``
    and so on, float32 ``[1, C, H, W]``.

    Raises
    ------
    EncoderError
        The encoder has an operation that ONNX lacks.
    """
    (height, width), buffer = encoder.spec.input_size, io.BytesIO()
    try:
        # torch warns of each shape that it makes constant; constant shapes are wanted here.
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                copy.deepcopy(encoder),  # batch norms are folded into its weights in place
                (torch.zeros(1, height, width, 3, dtype=torch.uint8),),
                buffer,  # type: ignore[arg-type]  # what the old exporter takes
                opset_version=OPSET,
                dynamo=False,
                input_names=["frame"],
                output_names=[f"features_{i}" for i in range(len(encoder.spec.layers))],
            )
    except Exception as error:  # the exporter raises nearly anything
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"encoder: {encoder.spec.name} cannot be written as an ONNX graph ({reason}); "
            "choose another encoder"
        ) from error
    return buffer.getvalue()


def quantise(model: bytes, frames: Frames, in_float: int = 0) -> dict[str, bytes]:
    """Quantise an ONNX encoder to int8, as OpenVINO's ``encoder.xml`` and ``encoder.bin``.

    The quantisation needs no training: the ranges of activations are those of ``frames``. It is
    symmetric for signed values and asymmetric for others (NNCF's mixed preset). Biases are
    corrected for the shift caused by rounding. The first ``in_float`` convolutions are left out.

    Raises
    ------
    EngineError
        NNCF is not installed, or cannot be loaded.
    OutputError
        The folder for temporary files is full.
    """
    from fapm.encoder import openvino_core as openvino

    # NNCF imports this module of torch, which warns of a missing CUDA that nobody asked for.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    with needed_for("precision: int8", "fapm[fit]"):
        nncf: Any = import_quietly("nncf")
    nncf.set_log_level(logging.ERROR)
    exact = openvino.plain(openvino.core().read_model(model))
    convolutions = [
        node.get_friendly_name()
        for node in exact.get_ordered_ops()
        if node.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    # Its own progress bars. Two threads that took stdout in turns would give it back in turns.
    with _quantising.held(), redirect_stdout(io.StringIO()):
        quantised = nncf.quantize(
            exact,
            nncf.Dataset([frame[None] for frame in frames]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(frames),
            ignored_scope=nncf.IgnoredScope(names=convolutions[:in_float]) if in_float else None,
        )
    # A counter of the whole process names unnamed nodes, so they are renamed by their position.
    for number, node in enumerate(quantised.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "encoder.xml")
            openvino.save_model(quantised, path)
            return {file.name: file.read_bytes() for file in (path, path.with_suffix(".bin"))}
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()}: cannot keep the int8 encoder in a file here: "
            f"{error.strerror or error}; set TMPDIR to another folder"
        ) from error


def feature_shapes(encoder: Encoder) -> tuple[tuple[int, int, int], ...]:
    """Shapes ``C, H, W`` of the feature maps, per layer."""
    height, width = encoder.spec.input_size
    with torch.inference_mode():
        features = encoder(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    return tuple((f.shape[1], f.shape[2], f.shape[3]) for f in features)
