"""Results of a graph for frames. No torch here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Scored(NamedTuple):
    """Results of an engine for ``B`` frames.

    Attributes
    ----------
    scores
        float32 ``[B]``, raw.
    maps
        float32 ``[B, h, w]`` in the frames' geometry, raw.
    cells
        int64 ``[B]``, the worst cell ``y * W + x`` on the finest grid.
    distances, keys
        per layer at the worst cell: float32 ``[B, L]`` distance to the nearest key and int64
        ``[B, L]`` that key's row in the layer's bank.
    """

    scores: NDArray[np.float32]
    maps: NDArray[np.float32]
    cells: NDArray[np.int64]
    distances: NDArray[np.float32]
    keys: NDArray[np.int64]


# What compiled graphs call their outputs.
OUTPUTS = Scored._fields
