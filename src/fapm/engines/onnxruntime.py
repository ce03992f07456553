"""ONNX Runtime: for whoever already runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from fapm.engines import OUTPUTS, Runtime, Scored
from fapm.engines.whole import whole_model
from fapm.errors import EngineError
from fapm.fitted import Fitted, FrozenEncoder


def open_engine(fitted: Fitted, runtime: Runtime) -> OrtEngine:
    """The whole graph: encoder and search in one."""
    with _one_line_errors():
        return OrtEngine(whole_model(fitted).SerializeToString(), runtime)


def open_encoder(encoder: FrozenEncoder, runtime: Runtime) -> OrtEncoder:
    """The encoder alone."""
    with _one_line_errors():
        return OrtEncoder(encoder.files["encoder.onnx"], runtime)


class _Session:
    name = "onnxruntime"

    def __init__(self, model: bytes, runtime: Runtime) -> None:
        offered = ort.get_available_providers()
        for provider in runtime.providers:
            if provider not in offered:
                raise EngineError(
                    f"provider: this ONNX Runtime has no {provider}; it has {', '.join(offered)}"
                )
        options = ort.SessionOptions()
        options.intra_op_num_threads = runtime.threads or 0
        self.threads = runtime.threads or os.cpu_count() or 1
        self._session = ort.InferenceSession(model, options, providers=[*runtime.providers])

    def _outputs(
        self, frames: Sequence[NDArray[np.uint8]], names: list[str] | None
    ) -> list[NDArray[Any]]:
        """Outputs of all frames, stacked."""
        each = [self._session.run(names, {"frame": frame[None]}) for frame in frames]
        return list(map(np.concatenate, zip(*each, strict=True)))


class OrtEngine(_Session):
    """:class:`fapm.engines.Engine` on ONNX Runtime."""

    def run(self, frames: Sequence[NDArray[np.uint8]]) -> Scored:
        """Score frames, RGB uint8 ``[h, w, 3]`` each."""
        return Scored(*self._outputs(frames, list(OUTPUTS)))


class OrtEncoder(_Session):
    """:class:`fapm.engines.EncoderRunner` on ONNX Runtime."""

    def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Per layer float32 ``[B, C, H, W]`` of frames, or tiles, RGB uint8 ``[h, w, 3]``."""
        return self._outputs(frames, None)


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
