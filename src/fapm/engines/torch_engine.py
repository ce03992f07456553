"""torch: the reference, and the way to GPUs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.bundle.fitted import Fitted
from fapm.encoder.network import Encoder
from fapm.encoder.spec import FrozenEncoder
from fapm.encoder.torch_threads import require_threads
from fapm.engines.base import Runtime
from fapm.graph.reference import Graph
from fapm.graph.scored import Scored
from fapm.system.forks import Once


def open_engine(fitted: Fitted, runtime: Runtime) -> TorchEngine:
    """The reference graph."""
    graph = Graph(
        _restore(fitted.encoder), fitted.config, fitted.banks, fitted.frame_roi, fitted.layout
    )
    return TorchEngine(graph, runtime)


def open_encoder(encoder: FrozenEncoder, runtime: Runtime) -> TorchEncoder:
    """The encoder alone."""
    return TorchEncoder(_restore(encoder), runtime)


class TorchEngine:
    """:class:`fapm.engines.base.Engine` on torch: CUDA or MPS where there is one, else the CPU."""

    name = "torch"

    def __init__(self, graph: Graph, runtime: Runtime) -> None:
        self.threads = _set_threads(runtime)
        self._device = _device()
        self._graph = graph.to(self._device)

    def run(self, frames: Sequence[NDArray[np.uint8]]) -> Scored:
        """Score frames, RGB uint8 ``[h, w, 3]`` each."""
        require_threads()
        with torch.inference_mode():
            scored = self._graph(torch.from_numpy(np.stack(frames)).to(self._device))
        return Scored(*(value.cpu().numpy() for value in scored))


class TorchEncoder:
    """:class:`fapm.engines.base.EncoderRunner` on torch."""

    name = "torch"

    def __init__(self, encoder: Encoder, runtime: Runtime) -> None:
        _set_threads(runtime)
        self._device = _device()
        self._encoder = encoder.to(self._device)

    def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Per layer float32 ``[B, C, H, W]`` of frames, or tiles, RGB uint8 ``[h, w, 3]``."""
        require_threads()
        with torch.inference_mode():
            features = self._encoder(torch.from_numpy(np.stack(frames)).to(self._device))
        return [f.cpu().contiguous().numpy() for f in features]


def _restore(encoder: FrozenEncoder) -> Encoder:
    _first_call()
    return Encoder.restore(encoder.spec, encoder.files["encoder.safetensors"])


@Once
def _first_call() -> None:
    """The first exchange with NumPy, alone: two threads can wait for each other in it for ever."""
    with torch.inference_mode():
        torch.from_numpy(np.zeros(1, np.uint8)).float().numpy()


def _device() -> torch.device:
    for name, backend in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        if backend.is_available():
            return torch.device(name)
    return torch.device("cpu")


def _set_threads(runtime: Runtime) -> int:
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    return torch.get_num_threads()
