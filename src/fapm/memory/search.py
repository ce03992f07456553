"""Search for the nearest keys, as the paper describes it (section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fapm.memory import coreset
from fapm.memory.bank import MemoryBank
from fapm.memory.patches import patch_vectors


def nearest_keys(
    features: Tensor,
    bank: MemoryBank,
    *,
    count: int,
    radius: int = 0,
    without_pictures: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Distances to the nearest keys of each cell's own patch (section 2.3).

    Parameters
    ----------
    features
        aggregated, float32 ``[B, C, H, W]``.
    count
        ``b``, the number of nearest keys.
    radius
        patches up to this many patches away are searched too.
    without_pictures
        per row of the batch, a training picture whose keys do not count, for leave-one-out.

    Returns
    -------
    distances, keys
        float32 ``[B, H * W, b]`` ascending, in the bank's unit, and int64 ``[B, H * W, b]`` rows
        of ``bank.keys``. Where a patch has fewer keys than ``b`` the distance is infinite.
    """
    batch, _, height, width = features.shape
    if (height, width) != (bank.height, bank.width):
        raise ValueError(
            f"features of {height} x {width} cells against a memory of {bank.height} x {bank.width}"
        )
    device = features.device
    distances = torch.full((batch, height * width, count), torch.inf, device=device)
    keys = torch.zeros((batch, height * width, count), dtype=torch.int64, device=device)
    for patch, searched in bank.search_sets(radius):
        memorised = torch.from_numpy(bank.keys[searched]).to(device)
        squared = pairwise_squared(patch_vectors(features, patch), memorised)
        squared = squared.view(batch, len(patch), -1)  # [B, V, k]
        if without_pictures is not None:
            own = bank.pictures[searched][None] == np.array(without_pictures)[:, None]
            squared = squared.masked_fill(torch.from_numpy(own[:, None]).to(device), torch.inf)
        best, position = squared.topk(min(count, len(searched)), largest=False)
        distances[:, patch, : best.shape[-1]] = best.sqrt() / bank.unit
        keys[:, patch, : best.shape[-1]] = torch.from_numpy(searched).to(device)[position]
    return distances, keys


def pairwise_squared(queries: Tensor, keys: Tensor) -> Tensor:
    """Squared Euclidean distances ``[Q, k]`` of ``queries [Q, C]`` to ``keys [k, C]``.

    The mean of the keys is subtracted from both first. Distances stay the same, norms shrink, and
    ``|q|^2 + |k|^2 - 2qk`` keeps its digits where a query lies close to a key. A distance that is
    not larger than rounding is set to 0, so that a picture equals its copy.
    """
    centre = keys.mean(dim=0)
    queries, keys = queries - centre, keys - centre
    query_squares = queries.square().sum(dim=1, keepdim=True)  # [Q, 1]
    key_squares = keys.square().sum(dim=1)  # [k]
    squared = torch.addmm(key_squares, queries, keys.T, alpha=-2).add_(query_squares)
    noise = coreset.ROUNDINGS * torch.finfo(squared.dtype).eps * (query_squares + key_squares.max())
    return squared.masked_fill_(squared < noise, 0)
