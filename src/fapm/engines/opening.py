"""Open an engine: OpenVINO, torch or ONNX Runtime behind one small interface."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fapm.bundle.fitted import Fitted
from fapm.encoder.spec import FrozenEncoder
from fapm.engines.base import EncoderRunner, Engine, Runtime
from fapm.errors import EngineError
from fapm.system.imports import needed_for


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
        return import_module(f"fapm.engines.{name}_engine")


def _to_install(name: str) -> str:
    return "fapm[fit]" if name == "torch" else name


def installed(name: str) -> bool:
    """Whether a package is there, without importing it."""
    try:
        return find_spec(name) is not None
    except ValueError:  # a module that somebody has blocked
        return False
