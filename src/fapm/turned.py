"""Pictures memorised at several angles: which picture, and which place in it, a key came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fapm.memory.bank import MemoryBank


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
