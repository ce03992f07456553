"""The interface of every engine, and the settings that choose one. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fapm.errors import EngineError
from fapm.graph.scored import Scored

EngineName = Literal["auto", "openvino", "torch", "onnxruntime"]
Hint = Literal["latency", "throughput"]

_MAX_THREADS = 1024


@dataclass(frozen=True)
class Runtime:
    """Settings that run a graph. They change the time that it takes, and not its results.

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

    Examples
    --------
    >>> import fapm
    >>> fapm.fit("good", resize=64, runtime=fapm.Runtime(threads=1)).engine_.threads
    1
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
    """The compiled graph: frames in, scores and maps out."""

    name: str
    threads: int

    def run(self, frames: Sequence[NDArray[np.uint8]]) -> Scored:
        """Score frames, RGB uint8 ``[h, w, 3]`` each."""


class EncoderRunner(Protocol):
    """The compiled encoder: frames, or tiles of them, in; feature maps out."""

    name: str

    def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Per layer float32 ``[B, C, H, W]`` of frames, or tiles, RGB uint8 ``[h, w, 3]``."""
