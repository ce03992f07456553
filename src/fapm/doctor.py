"""What this machine offers."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from fapm._version import __version__
from fapm.config import Config
from fapm.encoders import EMBEDDED, create_encoder

_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "opencv-python-headless")


def examine() -> list[tuple[str, str]]:
    """Facts as name and value; the embedded encoder is really loaded and run."""
    encoder = create_encoder(Config.create())
    size = encoder.spec.input_size
    features = encoder(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    shapes = ", ".join(f"{f.shape[1]} x {f.shape[2]} x {f.shape[3]}" for f in features)
    return [
        ("fapm", __version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        (
            "processor",
            f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} used",
        ),
        ("instructions", torch.backends.cpu.get_cpu_capability()),
        ("gpu", "cuda" if torch.cuda.is_available() else "none used"),
        *((name, _installed(name)) for name in _LIBRARIES),
        ("encoder", f"{EMBEDDED} works: {shapes}"),
        ("demo data", _installed("elpv-dataset")),
    ]


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
