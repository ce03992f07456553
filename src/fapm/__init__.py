"""Fast Adaptive Patch Memory: defects found and localised from pictures of good parts alone."""

from fapm import _threads as _threads  # first: before torch is imported
from fapm._version import __version__
from fapm.config import Config
from fapm.detector import Detector, fit, load
from fapm.errors import FapmError
from fapm.prediction import Failure, Prediction

__all__ = [
    "Config",
    "Detector",
    "Failure",
    "FapmError",
    "Prediction",
    "__version__",
    "fit",
    "load",
]
