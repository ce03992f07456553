"""OpenVINO's entry, and models as files: shared by the encoder's quantisation and the engine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fapm.system.forks import PerProcess, never_free
from fapm.system.imports import import_quietly

ov: Any = import_quietly("openvino")


@PerProcess
def core() -> Any:
    """OpenVINO's entry; made once, since it looks for devices.

    Nobody has it before one inference is done. Its bindings set up what all threads share at the
    first, and two threads that do so together may wait for each other for ever.
    """
    entry, ops = ov.Core(), operations()
    if core.inherited:
        never_free(entry)  # with the last one go the threads of all models, the parent's too
    frame = ops.parameter([1, 1, 1, 3], np.uint8)
    outputs = [ops.convert(frame, kind) for kind in ("f32", "i64")]
    model = entry.compile_model(ov.Model(outputs, [frame], "first"), "CPU", streams_here())
    infer([model.create_infer_request()], np.zeros((1, 1, 3), np.uint8))
    return entry


def infer(requests: Sequence[Any], frame: NDArray[np.uint8]) -> list[NDArray[Any]]:
    values: list[NDArray[Any]] = [frame[None]]
    for request in requests:
        request.infer(dict(enumerate(values)), share_inputs=True)
        values = [tensor.data for tensor in request.output_tensors]
    return [np.array(value) for value in values]  # the request's own memory is used again


def plain(model: Any) -> Any:
    """A model without nodes that do nothing: runtimes before 2025.4 cannot read Identity."""
    for node in model.get_ops():
        if node.get_type_name() == "Identity":
            node.output(0).replace(node.input_value(0))
    return model


def operations() -> Any:
    """The operations that models are made of; their module had another name in 2024."""
    return getattr(ov, "opset13", None) or import_module("openvino.runtime.opset13")


def streams_here() -> dict[str, int]:
    """In a child of a process that used OpenVINO: no streams, so that the caller does the work.

    OpenVINO gives a new model the threads of one that is not used any more, and waits for them.
    In a child they are not there.
    """
    return {"NUM_STREAMS": 0} if core.inherited else {}


def save_model(model: Any, path: Path) -> None:
    """Write an OpenVINO model to ``path``, and its constants beside it with the suffix ``.bin``.

    Raises
    ------
    OSError
        It cannot be written.
    """
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # of the system's reason OpenVINO keeps nothing
        raise OSError(f"OpenVINO could not write {path.name}; is the disk full?") from error
