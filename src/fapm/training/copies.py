"""Copies of a good picture that are memorised with it: turned by equal steps, or disturbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.memory.bank import MemoryBank

# Largest shift as a share of each edge, turn in degrees, and change of brightness and contrast.
_SHIFT = 0.02
_TURN = 2.0
_LIGHT = 0.06


@dataclass(frozen=True)
class Copies:
    """The copies of each picture that are memorised with it.

    Attributes
    ----------
    rotations
        frames at equal angles, the upright one among them (``Config.rotations``).
    augment
        lightly disturbed copies (``Config.augment``).
    """

    rotations: int = 1
    augment: int = 0
    seed: int = 0

    @classmethod
    def of(cls, config: Config) -> Copies:
        """Those that the config asks for."""
        return cls(config.rotations, config.augment, config.seed)

    @property
    def rows(self) -> int:
        """Frames of each picture: itself, turned, and its disturbed copies."""
        return self.rotations + self.augment

    @property
    def counted(self) -> int:
        """Frames of each picture that count for the ratio of keys: turned ones do not."""
        return 1 + self.augment

    def disturbed(self, pixels: NDArray[np.uint8], number: int) -> list[NDArray[np.uint8]]:
        """:func:`augmented` for the picture with this number."""
        return augmented(pixels, self.augment, (self.seed, number))


NO_COPIES = Copies()


def augmented(
    pixels: NDArray[np.uint8], count: int, seed: tuple[int, ...]
) -> list[NDArray[np.uint8]]:
    """``count`` copies, lightly shifted, turned and lit anew; the same for the same seed.

    What comes in from outside the frame is mirrored.

    Parameters
    ----------
    pixels
        RGB uint8 ``[h, w, 3]``.
    """
    height, width = pixels.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    rng = np.random.default_rng(seed)
    copies = []
    for _ in range(count):
        turn = cv2.getRotationMatrix2D(centre, rng.uniform(-_TURN, _TURN), 1.0)
        matrix = np.asarray(turn, np.float64)
        matrix[:, 2] += rng.uniform(-_SHIFT, _SHIFT, 2) * (width, height)
        moved = cv2.warpAffine(
            pixels,
            matrix,
            (width, height),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        contrast, brightness = 1 + rng.uniform(-_LIGHT, _LIGHT, 2)
        mean = float(moved.mean())
        lit = (moved - mean) * contrast + mean * brightness
        copies.append(lit.round().clip(0, 255).astype(np.uint8))
    return copies


def turned_back(
    bank: MemoryBank, rotations: int, copies: int, picture_sizes: Sequence[tuple[int, int]]
) -> MemoryBank:
    """The memory of turned copies as one of the pictures they are copies of.

    Keys of all copies belong to the picture, so that leave-one-out leaves all of them out, and
    their cells are where the key lies in the picture as it is; what the turn took from beyond the
    border lies at the border.

    Parameters
    ----------
    bank
        its ``pictures`` count frames, ``copies`` of each picture: first ``rotations`` at equal
        steps counter-clockwise, then others that lie as the picture does.
    picture_sizes
        height and width of each picture.
    """
    pictures, turn = np.divmod(bank.pictures, copies)  # [K] each
    if rotations == 1:
        return replace(bank, pictures=pictures)
    turn = np.where(turn < rotations, turn, 0)
    heights, widths = np.array(picture_sizes, np.float64)[pictures].T  # [K] each
    rows, columns = np.divmod(bank.cells, bank.width)
    # From the centre, in pixels of the picture: in a frame squashed to a square turns are no turns.
    y = ((rows + 0.5) / bank.height - 0.5) * heights
    x = ((columns + 0.5) / bank.width - 0.5) * widths
    angle = 2 * np.pi * turn / rotations
    cos, sin = np.cos(angle), np.sin(angle)
    y, x = sin * x + cos * y, cos * x - sin * y
    # A centre on the edge between two cells is not moved by rounding.
    rows = np.floor((y / heights + 0.5) * bank.height + 1e-9).astype(np.int64)
    columns = np.floor((x / widths + 0.5) * bank.width + 1e-9).astype(np.int64)
    rows, columns = rows.clip(0, bank.height - 1), columns.clip(0, bank.width - 1)
    return replace(bank, pictures=pictures, cells=rows * bank.width + columns)
