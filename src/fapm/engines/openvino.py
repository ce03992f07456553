"""OpenVINO: the engine for CPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fapm.engines import OUTPUTS, Runtime, Scored
from fapm.engines.quiet import import_quietly
from fapm.engines.search_layer import SearchPrecision
from fapm.engines.tiles import corners
from fapm.engines.whole import search_model
from fapm.errors import EngineError
from fapm.fitted import Fitted, FrozenEncoder

ov: Any = import_quietly("openvino")

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def open_engine(fitted: Fitted, runtime: Runtime) -> OpenVinoEngine:
    """The whole graph: encoder and search in one."""
    with _one_line_errors():
        encoder, precision = read_frame_encoder(fitted), fitted.encoder.precision
        head = read_search(fitted)
        if precision == "bf16":
            # Nothing behind the encoder may be rounded to bf16, and one graph has one precision.
            chain = [_compile(encoder, "bf16", runtime), _compile(head, "fp32", runtime)]
        else:
            chain = [_compile(join(encoder, head), precision, runtime)]
        return OpenVinoEngine(chain)


def open_encoder(encoder: FrozenEncoder, runtime: Runtime) -> OpenVinoEncoder:
    """The encoder alone."""
    with _one_line_errors():
        return OpenVinoEncoder([_compile(read_encoder(encoder), encoder.precision, runtime)])


def save_model(model: Any, path: Path) -> None:
    """Write an OpenVINO model to `path`, and its constants beside it with the suffix ``.bin``.

    Raises
    ------
    OSError
        It cannot be written.
    """
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # of the system's reason OpenVINO keeps nothing
        raise OSError(f"OpenVINO could not write {path.name}; is the disk full?") from error


class _Chain:
    """Compiled models, each fed by the one before; several frames at once where they have streams.

    Parameters
    ----------
    models
        compiled models; the first takes one frame, or tile, uint8 ``[1, h, w, 3]``.
    """

    name = "openvino"

    def __init__(self, models: Sequence[Any]) -> None:
        self.threads = int(models[0].get_property("INFERENCE_NUM_THREADS"))
        streams = min(int(m.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) for m in models)
        self._idle: SimpleQueue[list[Any]] = SimpleQueue()
        for _ in range(streams):
            self._idle.put([model.create_infer_request() for model in models])
        self._pool = ThreadPoolExecutor(streams) if streams > 1 else None

    def _outputs(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[Any]]]:
        """Per frame its outputs."""
        if self._pool is None or len(frames) == 1:
            return [self._run_one(frame) for frame in frames]
        return list(self._pool.map(self._run_one, frames))

    def _run_one(self, frame: NDArray[np.uint8]) -> list[NDArray[Any]]:
        requests = self._idle.get()  # each serves one thread at a time
        try:
            values: list[NDArray[Any]] = [frame[None]]
            for request in requests:
                request.infer(dict(enumerate(values)), share_inputs=True)
                values = [tensor.data for tensor in request.output_tensors]
            return [np.array(value) for value in values]  # the request's own memory is used again
        finally:
            self._idle.put(requests)


class OpenVinoEngine(_Chain):
    """:class:`fapm.engines.Engine` on OpenVINO."""

    def run(self, frames: Sequence[NDArray[np.uint8]]) -> Scored:
        """Score frames, RGB uint8 ``[h, w, 3]`` each."""
        return Scored(*map(np.concatenate, zip(*self._outputs(frames), strict=True)))


class OpenVinoEncoder(_Chain):
    """:class:`fapm.engines.EncoderRunner` on OpenVINO."""

    def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Per layer float32 ``[B, C, H, W]`` of frames, or tiles, RGB uint8 ``[h, w, 3]``."""
        return list(map(np.concatenate, zip(*self._outputs(frames), strict=True)))


def read_encoder(encoder: FrozenEncoder) -> Any:
    """``openvino.Model`` of an encoder, not compiled."""
    files = encoder.files
    if "encoder.xml" in files:
        weights = np.frombuffer(files["encoder.bin"], np.uint8)
        return core().read_model(files["encoder.xml"], ov.Tensor(weights))
    return core().read_model(files["encoder.onnx"])


def read_frame_encoder(fitted: Fitted) -> Any:
    """:func:`read_encoder` of whole frames: where they are cut, their tiles one after the other."""
    encoder, layout = read_encoder(fitted.encoder), fitted.layout
    if layout.tiles == 1:
        return encoder
    ops, (height, width) = ov.opset13, layout.tile_shape
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
    return core().read_model(search_model(fitted, precision).SerializeToString())


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
    """What the CPU computes with fast, in OpenVINO's words: ``FP32``, ``BF16``, ``INT8`` ..."""
    return tuple(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@cache
def core() -> Any:
    """OpenVINO's entry; made once, since it looks for devices."""
    return ov.Core()


def _compile(model: Any, precision: str, runtime: Runtime) -> Any:
    settings: dict[str, str | int] = {
        "PERFORMANCE_HINT": runtime.hint.upper(),
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
    }
    if runtime.threads is not None:
        settings["INFERENCE_NUM_THREADS"] = runtime.threads
    return core().compile_model(model, "CPU", settings)


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
