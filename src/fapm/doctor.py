"""What this machine offers."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from fapm._version import __version__
from fapm.config import Config
from fapm.engines import Runtime, openvino

_LIBRARIES = (
    "openvino", "onnx", "numpy", "pillow", "opencv-python-headless", "onnxruntime", "torch",
    "torchvision", "timm", "nncf",
)  # fmt: skip


def examine() -> Iterator[tuple[str, str]]:
    """Facts as name and value; where fitting is installed the embedded encoder is really run."""
    yield "fapm", __version__
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    yield "processor", f"{platform.machine()}, {os.cpu_count()} cores"
    offered = openvino.capabilities()
    kinds = {"FP32": "fp32", "BF16": "bf16", "INT8": "int8"}
    yield "precisions", ", ".join(name for kind, name in kinds.items() if kind in offered)
    yield "auto means", f"engine openvino, precision {_precision()}, hint latency"
    for name in _LIBRARIES:
        yield name, _installed(name)
    yield "gpu", _gpu()
    yield "encoder", _try_encoder()
    yield "demo data", _installed("elpv-dataset")


def _precision() -> str:
    """What ``--precision auto`` tries first at fit."""
    return "fp32 (int8 needs nncf)" if _installed("nncf") == "not installed" else "int8 if accurate"


def _gpu() -> str:
    try:
        import torch
    except ImportError:
        return "none used: it needs torch, which is not installed"
    used = torch.cuda.is_available() or torch.backends.mps.is_available()
    return "used with --engine torch" if used else "none"


def _try_encoder() -> str:
    try:
        from fapm.encoders import EMBEDDED, create_encoder
        from fapm.freeze import freeze
    except ImportError as error:
        return f"fit needs {error.name}, which is not installed: pip install 'fapm[fit]'"
    encoder = freeze(create_encoder(Config.create()), "fp32")
    openvino.open_encoder(encoder, Runtime())
    shapes = ", ".join(" x ".join(map(str, shape)) for shape in encoder.shapes)
    return f"{EMBEDDED} works: {shapes}"


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
