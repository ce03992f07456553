# ruff: noqa: E402  (settings come before the imports that read them)
"""What `peers.py` compares with: anomalib's models, converted by anomalib itself to OpenVINO.

The weights are random and nothing is downloaded: they do not change the time. Nothing is reported
to anyone either: OpenVINO and NNCF send usage data unless told not to, and here they cannot.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib.metadata import version

sys.modules["openvino_telemetry"] = None  # importing it now fails
os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore", category=FutureWarning, module="timm|anomalib")

import numpy as np
import openvino
import torch
from anomalib.models import EfficientAd, Padim, Patchcore
from anomalib.models.components.sampling import k_center_greedy
from numpy.typing import NDArray

logging.getLogger("anomalib").setLevel(logging.ERROR)
logging.getLogger("torch.onnx").setLevel(logging.ERROR)

EDGE = 224
EFFICIENT_AD_EDGE = 256  # as published
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
_CORE = openvino.Core()
_CORE.set_property({"ENABLE_MMAP": False})  # models are read from folders that go away


@dataclass(frozen=True)
class Peer:
    """A method with its encoder, the edge of its frames, and what builds it as if fitted."""

    method: str
    encoder: str
    edge: int
    build: Callable[[], torch.nn.Module]


def _efficient_ad() -> torch.nn.Module:
    module = EfficientAd()
    with torch.no_grad():  # zeros would mean that training has not set them
        module.model.mean_std["mean"].normal_()
        module.model.mean_std["std"].fill_(1)
        for name, value in {"qa_st": 0.1, "qb_st": 0.9, "qa_ae": 0.1, "qb_ae": 0.9}.items():
            module.model.quantiles[name].fill_(value)
    return module


def _padim() -> torch.nn.Module:
    module = Padim(pre_trained=False, pre_processor=Padim.configure_pre_processor((EDGE, EDGE)))
    cells, kept = (EDGE // 4) ** 2, module.model.n_features
    module.model.gaussian.mean = torch.randn(kept, cells)
    spread = torch.randn(cells, kept, kept)
    module.model.gaussian.inv_covariance = spread @ spread.mT / kept
    return module


def _patchcore(backbone: str, layers: tuple[str, ...], keys: int) -> torch.nn.Module:
    module = Patchcore(
        backbone=backbone,
        layers=layers,
        pre_trained=False,
        pre_processor=Patchcore.configure_pre_processor((EDGE, EDGE)),
    )
    channels = sum(module.model.feature_extractor.out_dims)
    module.model.memory_bank = torch.randn(keys, channels)
    return module


def peers(keys: int) -> list[Peer]:
    """All of them; ``keys`` is the size of PatchCore's memories."""
    return [
        Peer("EfficientAD-S", "its own", EFFICIENT_AD_EDGE, _efficient_ad),
        Peer("PaDiM", "ResNet18", EDGE, _padim),
        Peer(
            "PatchCore 10 %",
            "Lite0",
            EDGE,
            lambda: _patchcore("tf_efficientnet_lite0", ("blocks.2", "blocks.4"), keys),
        ),
        Peer(
            "PatchCore 10 %",
            "WideResNet50",
            EDGE,
            lambda: _patchcore("wide_resnet50_2", ("layer2", "layer3"), keys),
        ),
    ]


def example(edge: int) -> NDArray[np.float32]:
    """A frame as the converted models want it: float32 ``[1, 3, S, S]`` in 0 .. 1."""
    return np.random.default_rng(0).random((1, 3, edge, edge), dtype=np.float32)


class Converted:
    """A peer in OpenVINO, for one frame at a time; built and converted when first needed."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def compiled(self, precision: str) -> Callable[[NDArray[np.float32]], object]:
        """What runs it on this CPU: compiled for the latency of single frames, on all threads.

        Raises
        ------
        RuntimeError
            The CPU has no such precision, or what was converted says something else.
        """
        capabilities = _CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in capabilities:
            raise RuntimeError("this CPU has no bfloat16")
        return _compile(self._model, precision)

    @cached_property
    def _model(self) -> openvino.Model:
        torch.manual_seed(0)
        module = self._peer.build().eval()
        # Left to itself anomalib exports some models for a batch of exactly 2.
        options = {"dynamic_shapes": None, "opset_version": 18, "verbose": False}
        size = (self._peer.edge, self._peer.edge)
        with tempfile.TemporaryDirectory() as folder:
            path = module.to_openvino(folder, input_size=size, onnx_kwargs=options)
            model = _CORE.read_model(path)
        frame = example(self._peer.edge)
        with torch.inference_mode():
            expected = module(torch.from_numpy(frame)).anomaly_map.numpy()
        got = _compile(model, "fp32")(frame)["anomaly_map"]
        off = float(np.abs(got - expected).max() / np.abs(expected).max())
        if not off < 0.02:
            raise RuntimeError(f"the converted map is {100 * off:.1f} % off that of torch")
        return model


def _compile(model: openvino.Model, precision: str) -> openvino.CompiledModel:
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
    return _CORE.compile_model(model, "CPU", options)


def greedy_coreset(vectors: torch.Tensor, count: int) -> list[int]:
    """anomalib's coreset of ``count`` among ``[M, C]``: sparse random projection, then greedy."""
    k_center_greedy.tqdm = lambda steps, desc: steps  # no progress bar
    sampler = k_center_greedy.KCenterGreedy(embedding=vectors, sampling_ratio=0.1)
    sampler.coreset_size = count
    return sampler.select_coreset_idxs()


def about() -> dict[str, object]:
    """Date, machine and versions."""
    names = ("anomalib", "openvino", "torch", "torchvision", "timm")
    return {
        "date": str(date.today()),
        "cpu": " ".join(str(_CORE.get_property("CPU", "FULL_DEVICE_NAME")).split()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
