"""Imports of libraries that may be missing, broken, or eager to report their use to a server."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from fapm.errors import EngineError
from fapm.system.forks import Lock

# Whose code an import passes through before it reaches the library.
_ON_THE_WAY = ("fapm", "importlib", "contextlib", "__main__")
_PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow"}  # where names differ
_TELEMETRY = "openvino_telemetry"
_quietly = Lock()


@contextmanager
def needed_for(purpose: str, to_install: str) -> Iterator[None]:
    """For imports: a library that is missing or broken is one line.

    Parameters
    ----------
    purpose
        begins the line.
    to_install
        what pip is to install where a library is not there.

    Raises
    ------
    EngineError
        An import inside failed.
    """
    try:
        yield
    except Exception as error:  # broken libraries raise nearly anything when they are imported
        problem = import_problem(error, to_install)
        if problem is None:
            raise
        raise EngineError(f"{purpose}: {problem}") from error


def import_problem(error: Exception, to_install: str | None = None) -> str | None:
    """A line on a library whose import raised ``error``; None: no import did.

    Parameters
    ----------
    to_install
        what pip is to install where the library is not there; default: the library itself.
    """
    library = _broken_library(error)
    if library is not None:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        return (
            f"{library} is installed but cannot be loaded: {reason}; mend that, or type: "
            f"pip install --force-reinstall {_PACKAGES.get(library, library)}"
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.partition(".")[0]
        to_install = to_install or _PACKAGES.get(missing, missing)
        return f"{missing} is not installed; type: pip install '{to_install}'"
    return None


def import_quietly(name: str) -> Any:
    """Import OpenVINO or NNCF without what sends their telemetry.

    Both report by default, unless their shared package is absent; then they use stubs of their own.
    So it is absent while they are imported. Whoever imported them before has decided otherwise.
    """
    if name in sys.modules:
        return import_module(name)
    with _quietly.held():  # two threads must not both hide it, and both bring it back
        present = _TELEMETRY in sys.modules
        before = sys.modules.get(_TELEMETRY)
        if not present:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
        try:
            return import_module(name)
        finally:
            if not present:
                del sys.modules[_TELEMETRY]
            elif before is not None:
                sys.modules[_TELEMETRY] = before


def _broken_library(error: Exception) -> str | None:
    """The library that was found, and whose own code failed while it was imported."""
    library = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if name in _ON_THE_WAY:
            continue
        if frame.f_code.co_name == "<module>":
            library = name  # others may have imported it: the innermost is the broken one
        elif library is None:
            return None  # code that runs, and does not import
    if library is None and isinstance(error, ImportError):
        # Code that is not Python leaves no frame; nor does a library that is not there.
        return None if isinstance(error, ModuleNotFoundError) else error.name
    return library
