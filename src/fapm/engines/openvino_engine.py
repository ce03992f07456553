"""OpenVINO: the engine for CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fapm.bundle.fitted import Fitted
from fapm.encoder.openvino_core import core, infer, operations, ov, plain, streams_here
from fapm.encoder.spec import FrozenEncoder
from fapm.engines.base import Runtime
from fapm.errors import EngineError
from fapm.graph.layer import SearchPrecision
from fapm.graph.scored import OUTPUTS, Scored
from fapm.graph.tiles import corners
from fapm.graph.whole import search_model
from fapm.system.forks import PerProcess
from fapm.system.workers import Workers

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def open_engine(fitted: Fitted, runtime: Runtime) -> OpenVinoEngine:
    """The whole graph: encoder and search in one."""

    def compiled() -> list[Any]:
        encoder, precision = read_frame_encoder(fitted), fitted.encoder.precision
        head = read_search(fitted)
        if precision == "bf16":
            # Nothing behind the encoder may be rounded to bf16, and one graph has one precision.
            return [_compile(encoder, "bf16", runtime), _compile(head, "fp32", runtime)]
        return [_compile(join(encoder, head), precision, runtime)]

    return OpenVinoEngine(compiled)


def open_encoder(encoder: FrozenEncoder, runtime: Runtime) -> OpenVinoEncoder:
    """The encoder alone."""
    return OpenVinoEncoder(lambda: [_compile(read_encoder(encoder), encoder.precision, runtime)])


class _Streams:
    """Requests of compiled models that feed each other, and threads where there are several."""

    def __init__(self, models: Sequence[Any]) -> None:
        self.threads = max(1, int(models[0].get_property("INFERENCE_NUM_THREADS")))
        count = min(int(m.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) for m in models)
        self.idle: SimpleQueue[list[Any]] = SimpleQueue()
        for _ in range(count):
            self.idle.put([model.create_infer_request() for model in models])
        self.pool = Workers(count) if count > 1 else None


class _Chain:
    """Compiled models, each fed by the one before; several frames at once where they have streams.

    Parameters
    ----------
    compiled
        gives the models; the first takes one frame, or tile, uint8 ``[1, h, w, 3]``. It is called
        now, and again in each forked child that runs them.
    """

    name = "openvino"

    def __init__(self, compiled: Callable[[], Sequence[Any]]) -> None:
        def opened() -> _Streams:
            with _one_line_errors():
                return _Streams(compiled())

        self._streams = PerProcess(opened)
        self.threads = self._streams().threads

    def _outputs(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[Any]]]:
        """Per frame its outputs."""
        streams = self._streams()
        if streams.pool is None or len(frames) == 1:
            return [_run_one(streams, frame) for frame in frames]
        tasks = [streams.pool.submit(partial(_run_one, streams, frame)) for frame in frames]
        return [task.result() for task in tasks]


def _run_one(streams: _Streams, frame: NDArray[np.uint8]) -> list[NDArray[Any]]:
    requests = streams.idle.get()  # each serves one thread at a time
    try:
        return infer(requests, frame)
    finally:
        streams.idle.put(requests)


class OpenVinoEngine(_Chain):
    """:class:`fapm.engines.base.Engine` on OpenVINO."""

    def run(self, frames: Sequence[NDArray[np.uint8]]) -> Scored:
        """Score frames, RGB uint8 ``[h, w, 3]`` each."""
        return Scored(*map(np.concatenate, zip(*self._outputs(frames), strict=True)))


class OpenVinoEncoder(_Chain):
    """:class:`fapm.engines.base.EncoderRunner` on OpenVINO."""

    def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Per layer float32 ``[B, C, H, W]`` of frames, or tiles, RGB uint8 ``[h, w, 3]``."""
        return list(map(np.concatenate, zip(*self._outputs(frames), strict=True)))


def read_encoder(encoder: FrozenEncoder) -> Any:
    """``openvino.Model`` of an encoder, not compiled."""
    files = encoder.files
    if "encoder.xml" in files:
        weights = np.frombuffer(files["encoder.bin"], np.uint8)
        return plain(core().read_model(files["encoder.xml"], ov.Tensor(weights)))
    return plain(core().read_model(files["encoder.onnx"]))


def read_frame_encoder(fitted: Fitted) -> Any:
    """:func:`read_encoder` of whole frames: where they are cut, their tiles one after the other."""
    encoder, layout = read_encoder(fitted.encoder), fitted.layout
    if layout.tiles == 1:
        return encoder
    ops, (height, width) = operations(), layout.tile_shape
    frame = ops.parameter([1, *layout.shape, 3], np.uint8)
    tiles = [
        ops.slice(frame, [top, left], [top + height, left + width], [1, 1], [1, 2])
        for top, left in corners(layout, fitted.inspected_tiles)
    ]
    loop = ops.tensor_iterator()
    loop.set_body(encoder)
    every_row = (0, 1, 1, -1, 0)  # start, stride, size of a part, end, axis
    loop.set_sliced_input(encoder.get_parameters()[0], ops.concat(tiles, 0).output(0), *every_row)
    features = [
        loop.get_concatenated_slices(result.output(0), *every_row)
        for result in encoder.get_results()
    ]
    return ov.Model(features, [frame], "tiles")


def read_search(fitted: Fitted) -> Any:
    """``openvino.Model`` of everything behind the encoder, not compiled."""
    precision: SearchPrecision = "fp32" if fitted.encoder.precision == "fp32" else "int8"
    return plain(core().read_model(search_model(fitted, precision).SerializeToString()))


def join(encoder: Any, head: Any) -> Any:
    """One model of two; both are used up."""
    for parameter, result in zip(head.get_parameters(), encoder.get_results(), strict=True):
        parameter.output(0).replace(result.input_value(0))
    model = ov.Model(head.get_results(), encoder.get_parameters(), "fapm")
    model.inputs[0].set_names({"frame"})
    for output, name in zip(model.outputs, OUTPUTS, strict=True):
        output.set_names({name})
    return model


def capabilities() -> tuple[str, ...]:
    """Number formats that the CPU computes fast, in OpenVINO's words: ``FP32``, ``INT8`` ..."""
    return tuple(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _compile(model: Any, precision: str, runtime: Runtime) -> Any:
    settings: dict[str, str | int] = {
        "PERFORMANCE_HINT": runtime.hint.upper(),
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
    }
    if runtime.threads is not None:
        settings["INFERENCE_NUM_THREADS"] = runtime.threads
    entry = core()
    return entry.compile_model(model, "CPU", settings | streams_here())


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-200:]
        raise EngineError(
            f"engine: this OpenVINO ({ov.__version__}) cannot load the graph ({reason}); "
            "type: pip install --upgrade openvino, or fit the bundle again"
        ) from error
