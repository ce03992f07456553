"""Training pictures against a memory: all of it, or what is left without their own keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm.graph.reference import Search
from fapm.progress import Progress
from fapm.training.spool import Rows, Spool

# So many distances are held at a time (float32).
_DISTANCES = 2**25


def leave_one_out(
    search: Search,
    features: Spool | Rows,
    *,
    progress: Progress = lambda stage, done, total: None,
    notice: Callable[[Tensor], None] = lambda maps: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score each training picture against the memory without its own keys.

    Parameters
    ----------
    features
        of the ``N`` training pictures.
    notice
        called with their maps, float32 ``[B, h, w]``, some at a time and in order.

    Returns
    -------
    image scores and largest map values, float64 ``[N]``; empty for ``N = 1``.
    """
    if features.count == 1:
        return np.empty(0), np.empty(0)

    def measure(maps: Tensor) -> Tensor:
        notice(maps)
        return maps.amax(dim=(1, 2))

    own = range(features.count)
    return score_pictures(search, features, own=own, measure=measure, progress=progress)


def score_pictures(
    search: Search,
    features: Spool | Rows,
    *,
    own: Sequence[int] | None = None,
    measure: Callable[[Tensor], Tensor] = lambda maps: maps.amax(dim=(1, 2)),
    progress: Progress = lambda stage, done, total: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Image scores of pictures and what is measured of their maps, float64 ``[N]`` each.

    Parameters
    ----------
    own
        per picture the number it has in the memory: its keys do not count.
    measure
        float ``[B, h, w]`` to ``[B]``: the largest value by default.
    """
    count = features.count
    widest = max(
        len(cells) * len(keys)
        for bank in search.banks
        for cells, keys in bank.search_sets(search.config.radius)
    )
    step = max(1, min(_DISTANCES // widest, features.at_once))
    scores, measured = [], []
    for start in range(0, count, step):
        stop = min(start + step, count)
        layers = [features.pictures(n, start, stop) for n in range(len(search.banks))]
        scored = search(layers, without_pictures=None if own is None else own[start:stop])
        scores.append(scored.scores)
        measured.append(measure(scored.maps))
        progress("calibrate", stop, count)
    return torch.cat(scores).double().numpy(), torch.cat(measured).double().numpy()
