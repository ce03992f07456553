"""What runs the graph: OpenVINO, torch or ONNX Runtime behind one small interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fapm.errors import EngineError
from fapm.fitted import Fitted, FrozenEncoder
from fapm.imports import needed_for

EngineName = Literal["auto", "openvino", "torch", "onnxruntime"]
Hint = Literal["latency", "throughput"]

# What graphs call their outputs: the fields of Scored.
OUTPUTS = ("scores", "maps", "cells", "distances", "keys")

_MAX_THREADS = 1024


class Scored(NamedTuple):
    """What an engine says of ``B`` frames.

    Attributes
    ----------
    scores
        float32 ``[B]``, raw.
    maps
        float32 ``[B, h, w]`` in the frames' geometry, raw.
    cells
        int64 ``[B]``, the worst cell ``y * W + x`` on the finest grid.
    distances, keys
        per layer at the worst cell: float32 ``[B, L]`` distance to the nearest key and int64
        ``[B, L]`` that key's row in the layer's bank.
    """

    scores: NDArray[np.float32]
    maps: NDArray[np.float32]
    cells: NDArray[np.int64]
    distances: NDArray[np.float32]
    keys: NDArray[np.int64]


@dataclass(frozen=True)
class Runtime:
    """How graphs are run. It changes the time they take, not what they say.

    Parameters
    ----------
    engine
        ``auto`` takes OpenVINO.
    hint
        ``latency``: one frame at a time on all threads. ``throughput``: several frames at once
        (OpenVINO), each later than alone.
    threads
        of inference; None leaves it to the engine: as many as there are cores.
    providers
        ONNX Runtime's execution providers, in the order of preference.

    Raises
    ------
    EngineError
        A value out of range.
    """

    engine: EngineName = "auto"
    hint: Hint = "latency"
    threads: int | None = None
    providers: tuple[str, ...] = ("CPUExecutionProvider",)

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("engine", self.engine, get_args(EngineName)),
            ("hint", self.hint, get_args(Hint)),
        ):
            if value not in choices:
                raise EngineError(f"{name}: unknown {value!r}; choose one of {', '.join(choices)}")
        if self.threads is not None and not 1 <= self.threads <= _MAX_THREADS:
            raise EngineError(
                f"threads: {self.threads} is not between 1 and {_MAX_THREADS}; leave it out for "
                "as many as there are cores"
            )
        if not self.providers:
            raise EngineError("providers: none named; leave it out for CPUExecutionProvider")


class Engine(Protocol):
    """Frames in, what is to say of them out."""

    name: str
    threads: int

    def run(self, frames: Sequence[NDArray[np.uint8]]) -> Scored:
        """Score frames, RGB uint8 ``[h, w, 3]`` each."""


class EncoderRunner(Protocol):
    """Frames, or tiles of them, in; feature maps out."""

    name: str

    def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Per layer float32 ``[B, C, H, W]`` of frames, or tiles, RGB uint8 ``[h, w, 3]``."""


def open_engine(fitted: Fitted, runtime: Runtime) -> Engine:
    """The engine that ``runtime`` names, with the whole graph of a fitted detector.

    Raises
    ------
    EngineError
        The engine is not installed, or cannot run what was fitted.
    """
    engine: Engine = _module(runtime, fitted.encoder.precision).open_engine(fitted, runtime)
    return engine


def open_encoder(encoder: FrozenEncoder, runtime: Runtime) -> EncoderRunner:
    """The engine that ``runtime`` names, with the encoder alone; raises as :func:`open_engine`."""
    runner: EncoderRunner = _module(runtime, encoder.precision).open_encoder(encoder, runtime)
    return runner


def engine_name(runtime: Runtime) -> str:
    """The engine that ``runtime`` means; it is installed.

    Raises
    ------
    EngineError
        It is not installed.
    """
    name = "openvino" if runtime.engine == "auto" else runtime.engine
    if not installed(name):
        raise EngineError(
            f"engine: {name} is not installed; type: pip install '{_to_install(name)}'"
        )
    return name


def require_precision(fitted: FrozenEncoder, wanted: str) -> None:
    """Refuse to run a memory with another precision than it was fitted with.

    Raises
    ------
    EngineError
        ``wanted`` is neither ``auto`` nor what was fitted.
    """
    if wanted not in ("auto", fitted.precision):
        raise EngineError(
            f"precision: this bundle was fitted with {fitted.precision} and cannot run in {wanted}:"
            f" its memory holds the features of the {fitted.precision} encoder, and those of "
            f"another precision lie elsewhere; fit again with --precision {wanted}"
        )


def _module(runtime: Runtime, precision: str) -> Any:
    name = engine_name(runtime)
    if name != "openvino" and precision != "fp32":
        raise EngineError(
            f"engine: {name} cannot run a memory fitted with {precision}, which belongs to "
            "OpenVINO's encoder; use --engine openvino, or fit again with --precision fp32"
        )
    with needed_for("engine", _to_install(name)):
        return import_module(f"fapm.engines.{name}")


def _to_install(name: str) -> str:
    return "fapm[fit]" if name == "torch" else name


def installed(name: str) -> bool:
    """Whether a package is there, without importing it."""
    try:
        return find_spec(name) is not None
    except ValueError:  # a module that somebody has blocked
        return False
