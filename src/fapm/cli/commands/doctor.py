"""Engines, precisions and libraries of this machine, each checked by itself.

A broken library costs its own line only.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fapm._version import __version__
from fapm.errors import FapmError
from fapm.system.imports import import_problem, import_quietly

# Packages, and the names that their modules are imported by.
_LIBRARIES = {
    "openvino": "openvino",
    "onnx": "onnx",
    "numpy": "numpy",
    "pillow": "PIL.Image",
    "opencv-python-headless": "cv2",
    "onnxruntime": "onnxruntime",
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "nncf": "nncf",
}


def examine() -> Iterator[tuple[str, str]]:
    """Facts as name and value; where fitting is installed the embedded encoder is really run."""
    yield "fapm", __version__
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    yield "processor", f"{platform.machine()}, {os.cpu_count()} cores"
    yield "precisions", _found_out(_precisions)
    yield "auto means", f"engine openvino, precision {_precision()}, hint latency"
    for package, module in _LIBRARIES.items():
        yield package, _found_out(partial(_library, package, module))
    yield "gpu", _found_out(_gpu)
    yield "encoder", _found_out(_try_encoder)
    yield "demo data", _installed("elpv-dataset")


def _found_out(fact: Callable[[], str]) -> str:
    """The fact, or in one line why it cannot be had."""
    try:
        return fact()
    except FapmError as error:
        return str(error)
    except Exception as error:  # whatever is broken, the other lines are to be read
        reason = " ".join(str(error).split()) or type(error).__name__
        return import_problem(error, "fapm[fit]") or f"cannot be told: {reason}"


def _precisions() -> str:
    from fapm.engines import openvino_engine as openvino

    offered = openvino.capabilities()
    kinds = {"FP32": "fp32", "BF16": "bf16", "INT8": "int8"}
    return ", ".join(name for kind, name in kinds.items() if kind in offered)


def _precision() -> str:
    """The precision that ``--precision auto`` tries first at fit."""
    return "fp32 (int8 needs nncf)" if _installed("nncf") == "not installed" else "int8 if accurate"


def _library(package: str, module: str) -> str:
    """Its version; it is imported, to see whether it can be."""
    installed = _installed(package)
    try:
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # heard from NNCF
        import_quietly(module)
    except Exception as error:
        problem = import_problem(error) or " ".join(str(error).split())
        return "not installed" if installed == "not installed" else f"{installed}: {problem}"
    return installed


def _gpu() -> str:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return "none used: it needs torch, which is not installed"
    used = torch.cuda.is_available() or torch.backends.mps.is_available()
    return "used with --engine torch" if used else "none"


def _try_encoder() -> str:
    from fapm.config import Config
    from fapm.encoder.freeze import freeze
    from fapm.encoder.weights import EMBEDDED, create_encoder
    from fapm.engines.base import Runtime
    from fapm.engines.opening import open_encoder

    encoder = freeze(create_encoder(Config.create()), "fp32")
    open_encoder(encoder, Runtime())
    shapes = ", ".join(" x ".join(map(str, shape)) for shape in encoder.shapes)
    return f"{EMBEDDED} works: {shapes}"


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


_WIDTH = 24


def doctor_command() -> None:
    """Say what this machine offers."""
    for name, value in examine():
        print(f"{name:<{_WIDTH}}{value}", flush=True)
