"""ONNX Runtime: for whoever already runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from fapm.bundle.fitted import Fitted
from fapm.encoder.spec import OPSET, FrozenEncoder
from fapm.engines.base import Runtime
from fapm.errors import EngineError
from fapm.graph.scored import OUTPUTS, Scored
from fapm.graph.whole import whole_model
from fapm.graph.writer import IR_VERSION
from fapm.system.forks import Once, PerProcess


def open_engine(fitted: Fitted, runtime: Runtime) -> OrtEngine:
    """The whole graph: encoder and search in one."""
    return OrtEngine(lambda: whole_model(fitted).SerializeToString(), runtime)


def open_encoder(encoder: FrozenEncoder, runtime: Runtime) -> OrtEncoder:
    """The encoder alone."""
    return OrtEncoder(lambda: encoder.files["encoder.onnx"], runtime)


class _Session:
    """A graph that runs.

    Parameters
    ----------
    model
        gives the ONNX file.
    """

    name = "onnxruntime"

    def __init__(self, model: Callable[[], bytes], runtime: Runtime) -> None:
        offered = ort.get_available_providers()
        for provider in runtime.providers:
            if provider not in offered:
                raise EngineError(
                    f"provider: this ONNX Runtime has no {provider}; it has {', '.join(offered)}"
                )
        self.threads = runtime.threads or os.cpu_count() or 1
        self._session = PerProcess(lambda: _open(model, runtime))
        self._session()  # what cannot be loaded is refused now

    def _outputs(
        self, frames: Sequence[NDArray[np.uint8]], names: list[str] | None
    ) -> list[NDArray[Any]]:
        """Outputs of all frames, stacked."""
        session = self._session()
        each = [session.run(names, {"frame": frame[None]}) for frame in frames]
        return list(map(np.concatenate, zip(*each, strict=True)))


class OrtEngine(_Session):
    """:class:`fapm.engines.base.Engine` on ONNX Runtime."""

    def run(self, frames: Sequence[NDArray[np.uint8]]) -> Scored:
        """Score frames, RGB uint8 ``[h, w, 3]`` each."""
        return Scored(*self._outputs(frames, list(OUTPUTS)))


class OrtEncoder(_Session):
    """:class:`fapm.engines.base.EncoderRunner` on ONNX Runtime."""

    def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Per layer float32 ``[B, C, H, W]`` of frames, or tiles, RGB uint8 ``[h, w, 3]``."""
        return self._outputs(frames, None)


def _open(model: Callable[[], bytes], runtime: Runtime) -> Any:
    _first_call()
    options = ort.SessionOptions()
    options.intra_op_num_threads = runtime.threads or 0
    with _one_line_errors():
        return ort.InferenceSession(model(), options, providers=[*runtime.providers])


@Once
def _first_call() -> None:
    """The first inference of the process, alone: what it sets up has to be there for all others."""
    kind = onnx.TensorProto.UINT8
    same = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["frame"], ["same"])],
        "first",
        [onnx.helper.make_tensor_value_info("frame", kind, [1])],
        [onnx.helper.make_tensor_value_info("same", kind, [1])],
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(same, ir_version=IR_VERSION, opset_imports=opset)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    session.run(None, {"frame": np.zeros(1, np.uint8)})


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except EngineError:
        raise
    except Exception as error:  # the runtime's exceptions, and protobuf's, share no other base
        reason = " ".join(str(error).split())[:200]
        raise EngineError(
            f"engine: this ONNX Runtime ({ort.__version__}) cannot load the graph ({reason}); "
            "type: pip install --upgrade onnxruntime, or fit the bundle again"
        ) from error
