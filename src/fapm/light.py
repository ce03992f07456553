"""Light: frames made as bright as the good pictures were. Numbers behind the choice are in
``docs/decisions.md``. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# A frame darker or brighter than this says nothing of a lamp: it would only be noise made visible.
MOST = 3.0
# Of a frame's pixels, from below: where its whitest begin.
_WHITE = 0.999
# Grey levels above this may have been clipped by the camera.
_KNEE = 230
_GREYS = np.arange(256.0)


@dataclass(frozen=True)
class Light:
    """How bright the good pictures are.

    Attributes
    ----------
    level
        of the median good picture, as :func:`level` has it; at least 1.
    white
        grey level that their whitest pixels reach, 0 to 255.
    """

    level: float
    white: float

    def table(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What each of the 256 grey levels of a frame becomes, uint8 ``[256]``.

        A gain; but what may have been clipped in a frame that is too bright goes up to
        :attr:`white`, since nobody knows how bright it was. The frame is RGB uint8 ``[S, S, 3]``.
        """
        gain = float(np.clip(self.level / max(level(frame), 1e-6), 1 / MOST, MOST))
        lit = gain * _GREYS
        if lit[-1] < self.white:
            lit[_KNEE:] = np.linspace(lit[_KNEE], self.white, 256 - _KNEE)
        return np.asarray(lit.round().clip(0, 255), np.uint8)


def learn(frames: Sequence[NDArray[np.uint8]]) -> Light | None:
    """How bright good pictures are, RGB uint8 ``[S, S, 3]`` each; None if there are none."""
    if not frames:
        return None
    levels = [level(frame) for frame in frames]
    whites = [float(np.quantile(frame, _WHITE)) for frame in frames]
    return Light(max(1.0, float(np.median(levels))), float(np.median(whites)))


def level(frame: NDArray[np.uint8]) -> float:
    """How bright a frame is: the median of its grey levels, each spread evenly over its unit.

    A defect that covers less than half of the frame hardly moves it.
    """
    counts = np.bincount(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).ravel(), minlength=256)
    total, half = counts.cumsum(), frame.shape[0] * frame.shape[1] / 2
    middle = int(np.searchsorted(total, half))
    return float(middle + 0.5 - (total[middle] - half) / counts[middle])


def relit(frame: NDArray[np.uint8], table: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """The frame, uint8 ``[S, S, 3]``, with its grey levels replaced; None: as it is."""
    return frame if table is None else np.asarray(cv2.LUT(frame, table), np.uint8)
