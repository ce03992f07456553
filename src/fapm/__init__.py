"""Fast Adaptive Patch Memory: defects found and localised from pictures of good parts alone.

>>> import fapm
>>> fapm.__version__.count(".")
2
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fapm import _threads as _threads  # before torch is imported
from fapm._version import __version__

if TYPE_CHECKING:
    from fapm.config import Config
    from fapm.detector import Detector, fit, load
    from fapm.engines.base import Runtime
    from fapm.errors import FapmError
    from fapm.frames.preparation import Failure
    from fapm.inspection.drift import DriftMonitor
    from fapm.inspection.prediction import Prediction

__all__ = [
    "Config",
    "Detector",
    "DriftMonitor",
    "Failure",
    "FapmError",
    "Prediction",
    "Runtime",
    "__version__",
    "fit",
    "load",
]

_HOMES = {
    "Config": "config",
    "Detector": "detector",
    "DriftMonitor": "inspection.drift",
    "Failure": "frames.preparation",
    "FapmError": "errors",
    "Prediction": "inspection.prediction",
    "Runtime": "engines.base",
    "fit": "detector",
    "load": "detector",
}


def __getattr__(name: str) -> Any:
    # On first use: torch takes seconds to import, and `fapm --help` should not.
    if name not in _HOMES:
        raise AttributeError(f"module 'fapm' has no attribute {name!r}")
    return getattr(import_module(f"fapm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
