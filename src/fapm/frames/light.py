"""Light: frames made as bright as the good pictures were. Numbers behind the choice are in
``docs/decisions.md``. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.frames.layout import Layout
from fapm.frames.stage import Sample, Stage
from fapm.plain import Described, Tensors, require

# A frame darker or brighter than this says nothing of a lamp: it would only be noise made visible.
MOST = 3.0
# Share of a picture that is darker than its whitest part, such as a background that is clipped.
_WHITE = 0.95
# Grey levels above this may have been clipped by the camera; those below _BLACK are mostly noise.
_KNEE, _BLACK = 230, 16
_CLIPPED = 250  # pictures whose whitest twentieth reaches this
# Which quantile of a frame's grey levels tells how bright it is: the first that is in between.
_SHARES = (0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.9, 0.1)
_GREYS = np.arange(256.0)


@dataclass(frozen=True)
class Light(Stage):
    """The stage that makes frames as bright as the good pictures are.

    Attributes
    ----------
    level
        of the median good picture: its quantile of grey levels at ``share``; at least 1.
    white
        grey level of their whitest twentieth, 0 to 255.
    share
        above 0, below 1: 0.5 unless that is black or white in the good pictures.
    """

    name: ClassVar[str] = "light"

    level: float
    white: float
    share: float = 0.5

    @classmethod
    def wanted(cls, config: Config) -> bool:
        """With ``config.light``."""
        return config.light != "none"

    @classmethod
    def learn(cls, sample: Sample) -> Light:
        """The medians of the good pictures' levels."""
        # One frame at a time: those that are cut into tiles are large.
        told = [
            [*(quantile(f, share) for share in _SHARES), float(np.quantile(f, _WHITE))]
            for f in sample.frames
        ]
        *levels, white = np.median(told, axis=0).tolist()
        outside = [max(_BLACK - level, level - _KNEE, 0.0) for level in levels]
        chosen = int(np.argmin(outside))
        return cls(max(1.0, levels[chosen]), white, _SHARES[chosen])

    def agrees(self, config: Config) -> bool:
        """With ``config.light``."""
        return self.wanted(config)

    def apply(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A frame as bright as the good pictures; the trace is its :meth:`table`."""
        table = self.table(frame)
        return relit(frame, table), table

    def apply_turned(self, frame: NDArray[np.uint8], trace: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """By the table of the upright frame: the corners that turn out of sight are not missed."""
        return relit(frame, trace)

    def described(self) -> Described:
        """The three numbers."""
        return asdict(self), {}

    @classmethod
    def restored(cls, described: Mapping[str, Any], tensors: Tensors, layout: Layout) -> Light:
        """As :meth:`Stage.restored`."""
        light = cls(**described)
        require(
            all(isinstance(number, float) for number in (light.level, light.white, light.share))
            and 1 <= light.level <= 256
            and 0 <= light.white <= 255
            and 0 < light.share < 1,
            "its light contradicts itself",
        )
        return light

    def table(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The new value of each of the 256 grey levels of a frame, uint8 ``[256]``.

        A gain; but what may have been clipped in a frame that is too bright goes up to
        :attr:`white`, since nobody knows how bright it was, and where the good pictures are
        clipped themselves, so does what is as white in the frame. The frame is RGB uint8
        ``[h, w, 3]``.
        """
        level = quantile(frame, self.share)
        gain = float(np.clip(self.level / max(level, 1e-6), 1 / MOST, MOST))
        lit = gain * _GREYS
        top = 255
        if self.white >= _CLIPPED:
            top = round(np.clip(quantile(frame, _WHITE), 255 / MOST, 255))
        if lit[top] < self.white:
            knee = top * _KNEE // 255
            lit[knee : top + 1] = np.linspace(lit[knee], self.white, top + 1 - knee)
            lit[top:] = self.white
        return np.asarray(lit.round().clip(0, 255), np.uint8)


def quantile(frame: NDArray[np.uint8], share: float) -> float:
    """Quantile of a frame's grey levels, each spread evenly over its unit: -0.5 to 255.5."""
    counts = np.bincount(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).ravel(), minlength=256)
    below, wanted = counts.cumsum(), share * frame.shape[0] * frame.shape[1]
    grey = int(np.searchsorted(below, wanted))
    return float(grey + 0.5 - (below[grey] - wanted) / counts[grey])


def relit(frame: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame, uint8 ``[h, w, 3]``, with its 256 grey levels replaced."""
    return np.asarray(cv2.LUT(frame, table), np.uint8)
