"""FAPM as one of the compared methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fapm.compare.on_encoder import Judged
from fapm.compare.setting import Setting
from fapm.detector import Detector
from fapm.frames.preparation import Preparation


class Ours:
    """Our detector as a :class:`fapm.compare.on_encoder.Method`."""

    def __init__(self, setting: Setting) -> None:
        config = setting.config
        self._detector = Detector(config, runtime=setting.runtime, max_pixels=setting.max_pixels)
        self.note = f"{config.sampling}, {100 * config.ratio:g} %, {config.precision}"

    def fit(self, pictures: Sequence[Path]) -> None:
        """Memorise the good pictures, choose thresholds, and compile the graph."""
        self._detector.fit(list(pictures))
        _ = self._detector.engine_

    def score(self, frames: Sequence[NDArray[np.uint8]]) -> Judged:
        """Judge frames, RGB uint8 ``[S, S, 3]`` each."""
        scored = self._detector.engine_.run(frames)
        return Judged(scored.scores, scored.maps)

    @property
    def preparation(self) -> Preparation:
        """The detector's own."""
        return self._detector.fitted_.preparation

    @property
    def memory_bytes(self) -> int:
        """Size of the keys in bytes."""
        return sum(bank.keys.nbytes for bank in self._detector.fitted_.banks)
