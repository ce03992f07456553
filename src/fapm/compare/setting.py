"""What all methods of a comparison are given. No torch here: each method runs elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from fapm.config import Config
from fapm.engines.base import Runtime


@dataclass(frozen=True)
class Setting:
    """Frames and encoder (``config``), what runs the encoder, and the largest picture allowed."""

    config: Config
    runtime: Runtime
    max_pixels: int
