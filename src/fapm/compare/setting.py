"""Setting that all methods of a comparison share. This module does not need torch."""

from __future__ import annotations

from dataclasses import dataclass

from fapm.config import Config
from fapm.engines.base import Runtime


@dataclass(frozen=True)
class Setting:
    """Frames and encoder (``config``), the encoder's runtime, and the largest allowed picture."""

    config: Config
    runtime: Runtime
    max_pixels: int
