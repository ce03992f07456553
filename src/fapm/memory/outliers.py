"""Which normal pictures are unlike the others: defects hidden among the good.

Not in the paper, which takes every training picture for good. Here a cell is compared with all
vectors of its patch rather than with keys, since a key of a defective picture would cover it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm.memory.geometry import cells_by_patch, neighbour_patches, patch_grid, upsample_index
from fapm.memory.search import pairwise_squared

# A cell is as far from normal as from this many other pictures on average: one alike is not enough
# to make it normal, or two pictures with the same defect would hide each other.
NEAREST = 2
# A picture scores the mean of its worst cells: one odd cell says less than a few.
WORST = 5
# It stands out if fewer than this share of good pictures would score as much ...
STAND_OUT = 0.003
# ... and then it is no longer a reference for others, which may make more stand out.
_ROUNDS = 3
# Of more pictures than this some are references, evenly spread: time grows with pictures x these.
_REFERENCES = 512
_DISTANCES = 2**24  # held at a time (float32)


class Outliers(NamedTuple):
    """What :func:`find_outliers` found in ``N`` pictures.

    Attributes
    ----------
    scores
        float64 ``[N]``; larger is less like the others. In units of each layer's median distance.
    cells
        float32 ``[N, H, W]`` on the finest layer's grid, what the scores are made of.
    cut
        scores above it stand out.
    """

    scores: NDArray[np.float64]
    cells: NDArray[np.float32]
    cut: float

    @property
    def outlying(self) -> NDArray[np.bool_]:
        """Pictures that stand out, bool ``[N]``."""
        return self.scores > self.cut


def find_outliers(
    vectors: Callable[[int, int], Tensor],
    sizes: Sequence[tuple[int, int]],
    pictures: int,
    *,
    grid: int,
    radius: int,
    coarse_upsampling: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outliers:
    """Score every picture against the others, without a coreset.

    How many stand out depends on the scores of the others alone: see :func:`tail_level`.

    Parameters
    ----------
    vectors
        returns the vectors of a layer's patch in all pictures, float32 ``[N * V, C]``.
    sizes
        height and width of each layer's feature map, in cells.
    grid, radius, coarse_upsampling
        as in :class:`fapm.Config`.
    progress
        called with rounds done and their largest number.
    """
    finest = max(sizes, key=lambda size: size[0] * size[1])
    outlying = np.zeros(pictures, np.bool_)
    for number in range(_ROUNDS):
        references = np.flatnonzero(~outlying)
        if len(references) > _REFERENCES:
            places = np.linspace(0, len(references) - 1, _REFERENCES).round().astype(int)
            references = references[places]
        unified = torch.zeros(pictures, finest[0] * finest[1])
        for layer, (height, width) in enumerate(sizes):
            distances = torch.empty(pictures, height * width)
            cells = cells_by_patch(height, width, grid)
            around = neighbour_patches(*patch_grid(height, width, grid), radius)
            for patch, searched in enumerate(around):
                distances[:, cells[patch]] = picture_distances(
                    vectors(layer, patch).view(pictures, len(cells[patch]), -1),
                    torch.cat(
                        [vectors(layer, p).view(pictures, len(cells[p]), -1) for p in searched], 1
                    )[references],
                    references,
                )
            unit = float(distances.median()) or 1.0
            index = upsample_index((height, width), finest, coarse_upsampling)
            unified += distances[:, index] / unit
        worst = unified.topk(min(WORST, unified.shape[1]), dim=1).values.mean(dim=1)
        scores = worst.double().numpy()
        found = Outliers(
            scores, unified.view(pictures, *finest).numpy(), tail_level(scores, STAND_OUT)
        )
        progress(number + 1, _ROUNDS)
        if np.array_equal(found.outlying, outlying):
            break
        outlying = found.outlying
    progress(_ROUNDS, _ROUNDS)
    return found


def picture_distances(
    queries: Tensor, references: Tensor, numbers: NDArray[np.int64], nearest: int = NEAREST
) -> Tensor:
    """Mean distance of each vector to the ``nearest`` pictures that come closest to it.

    Parameters
    ----------
    queries
        vectors of one patch in all pictures, float ``[N, V, C]``.
    references
        those they are compared with, float ``[R, V', C]``.
    numbers
        which pictures the references are, int64 ``[R]``: none is compared with itself.

    Returns
    -------
    float ``[N, V]``; 0 where there is no other picture.
    """
    count, width, channels = queries.shape
    flat = references.reshape(-1, channels)
    step = max(1, _DISTANCES // (width * len(flat)))
    own = torch.from_numpy(numbers)
    rows = []
    for start in range(0, count, step):
        part = queries[start : start + step]
        squared = pairwise_squared(part.reshape(-1, channels), flat)
        by_picture = squared.view(len(part), width, len(references), -1).amin(dim=3)  # [n, V, R]
        itself = torch.arange(start, start + len(part))[:, None] == own  # [n, R]
        by_picture.masked_fill_(itself[:, None], torch.inf)
        best = by_picture.topk(min(nearest, len(references)), dim=2, largest=False).values.sqrt()
        known = best.isfinite()
        total = best.masked_fill(~known, 0).sum(dim=2)
        rows.append(total / known.sum(dim=2).clamp(min=1))
    return torch.cat(rows)


def tail_level(scores: NDArray[np.float64], share: float) -> float:
    """Level that a ``share`` of good pictures exceeds, if most pictures are good.

    Scores are maxima over cells, so that those of good pictures follow a Gumbel distribution
    roughly. Its two parameters come from the quantiles of 10 to 60 % (least squares), which
    defects, scoring high, can hardly move. Never below the median.
    """
    at = np.linspace(0.1, 0.6, 11)
    reduced = -np.log(-np.log(at))
    levels = np.quantile(scores, at, method="hazen")
    scale, location = np.polyfit(reduced, levels, 1)
    return float(max(location - scale * np.log(-np.log1p(-share)), np.median(scores)))
