"""A layer's memory bank, as the config wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm.config import Config
from fapm.frames.layout import Layout, layout_of
from fapm.memory.bank import MemoryBank
from fapm.memory.memorise import Budget, budgets, build_bank


def layer_budgets(
    config: Config,
    sizes: Sequence[tuple[int, int]],
    pictures: int,
    inside: Sequence[NDArray[np.bool_] | None] | None = None,
    layout: Layout | None = None,
) -> list[Budget]:
    """The largest number of keys of layers of ``H, W`` cells, with ``pictures`` memorised.

    A frame of ``T`` tiles has ``T`` times the vectors, and so many the fewer pictures count: more
    keys than a whole picture has did not make tiles any better (measured, ``docs/tiles.md``).

    Parameters
    ----------
    layout
        of the frames; default: a square that is not cut.
    """
    layout, counted = layout or layout_of(config), pictures
    if config.budget_pictures is not None:
        counted = min(pictures, max(1, config.budget_pictures // layout.tiles))
    return budgets(
        sizes,
        counted,
        grid=layout.grid(config.grid),
        ratio=config.ratio,
        max_keys=config.max_keys,
        inside=inside,
    )


def memorise_layer(
    vectors: Callable[[int], Tensor],
    budget: Budget,
    size: tuple[int, int],
    config: Config,
    inside: NDArray[np.bool_] | None = None,
    layout: Layout | None = None,
) -> MemoryBank:
    """:func:`fapm.memory.memorise.build_bank` for a layer of ``H, W`` cells, on one thread.

    Parameters
    ----------
    layout
        of the frames; default: a square that is not cut.
    """
    layout = layout or layout_of(config)
    with one_thread():
        return build_bank(
            vectors,
            budget,
            size,
            grid=layout.grid(config.grid),
            sampling=config.sampling,
            distance_unit=config.distance_unit,
            far_threshold=config.far_threshold,
            inside=inside,
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Greedy sampling is tens of thousands of short steps.

    Sharing each among threads gains nothing (measured), and where another program has one of the
    cores, every step waits for its turn there: fits took ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
