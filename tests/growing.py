"""Small memories that learn more pictures."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference_online as reference
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import cells_by_patch
from stripes import good

EDGE, GRID, CHANNELS = 4, 2, 5  # 4 patches of 4 cells
SEEDS = st.integers(0, 2**32 - 1)


def bank_of(pictures: NDArray[np.float32], keys: int) -> MemoryBank:
    """The first ``keys`` vectors of each patch of ``pictures [N, V, C]`` by patch."""
    cells = cells_by_patch(EDGE, EDGE, GRID)
    count = np.arange(keys)
    vectors = [pictures[:, own].reshape(-1, CHANNELS) for own in cells]
    return MemoryBank(
        keys=np.concatenate([v[:keys] for v in vectors]),
        offsets=np.arange(len(cells) + 1) * keys,
        pictures=np.concatenate([count // len(own) for own in cells]),
        cells=np.concatenate([own[count % len(own)] for own in cells]),
        radii=np.array([reference.nearest(v, v[:keys]).max() for v in vectors], np.float32),
        unit=1.5,
        height=EDGE,
        width=EDGE,
        grid=GRID,
    )


def made(seed: int, old: int = 3, new: int = 2) -> tuple[MemoryBank, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.2, 3, (EDGE * EDGE, 1))  # patches of different spread
    vectors = rng.normal(size=(old + new, EDGE * EDGE, CHANNELS)) * scale
    return bank_of(vectors[:old].astype(np.float32), 6), vectors[old:].astype(np.float32)


# A detector


def odd(seed: int) -> NDArray[np.uint8]:
    """A good part with a spot that the first ones do not have."""
    picture = good(seed)
    picture[8:20, 36:48] = 30
    return picture
