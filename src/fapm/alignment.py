"""Which alignment a fit uses: what is asked for, or what costs nothing on the good pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fapm.align import Template, learn
from fapm.config import Config
from fapm.engines import Runtime
from fapm.fitted import FrozenEncoder


def choose_template(
    frames: Callable[[], list[NDArray[np.uint8]]],
    config: Config,
    encoder: FrozenEncoder,
    runtime: Runtime,
) -> tuple[Template | None, str]:
    """The template frames will be registered to, if any, and a sentence on it; may be empty.

    Parameters
    ----------
    frames
        gives normal pictures made ready, RGB uint8 ``[S, S, 3]`` each; called only if needed.
    """
    if config.align == "none":
        return None, ""
    pictures = frames()
    if not pictures:
        return None, ""  # whoever fits finds nothing to read, and says so
    motion = "rigid" if config.align == "auto" else config.align
    return learn(pictures, motion), ""
