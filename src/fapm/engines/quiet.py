"""Imports of libraries that would report their use to a server."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

_TELEMETRY = "openvino_telemetry"


def import_quietly(name: str) -> Any:
    """Import OpenVINO or NNCF without what sends their telemetry.

    Both report by default, unless their shared package is absent; then they use stubs of their own.
    So it is absent while they are imported. Whoever imported them before has decided otherwise.
    """
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
