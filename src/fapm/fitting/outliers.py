"""Find training pictures that are unlike the others: defects hidden among the good.

The paper does not have this, because it takes every training picture for good. A cell is compared
here with all vectors of its patch, not with keys, since a key of a defective picture would cover
its defect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm.config import Config
from fapm.memory.geometry import (
    Grid,
    cells_by_patch,
    finest,
    neighbour_patches,
    patch_grid,
    upsample_index,
)
from fapm.progress import Progress
from fapm.training.spool import Rows, Spool

# The distance of a cell is its mean distance to this many other pictures. With one picture only,
# two pictures with the same defect would hide each other.
NEAREST = 2
# The score of a picture is the mean over this many worst cells: a single odd cell says less.
WORST = 5
# It stands out if fewer than this share of good pictures would score as much ...
STAND_OUT = 0.01
# ... and then it is no longer a reference for others, which may make more stand out.
_ROUNDS = 3
# If there are more pictures than this, as many are references, evenly spread: the time grows with
# the number of pictures times that of the references.
_REFERENCES = 512
_DISTANCES = 2**22  # held at a time (float32)
# This many nearest pictures of each cell are remembered, so that further rounds cost nothing.
_KNOWN = 6


class Outliers(NamedTuple):
    """Result of :func:`find_outliers` for ``N`` pictures.

    Attributes
    ----------
    scores
        float64 ``[N]``; a larger score is less like the others. The unit is each layer's median
        distance.
    cells
        float32 ``[N, H, W]``, the distances on the finest layer's grid from which the scores come.
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
    grid: Grid,
    radius: int,
    coarse_upsampling: str,
    inside: Sequence[NDArray[np.bool_] | None] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outliers:
    """Score every picture against the others, without a coreset.

    The number of pictures that stand out depends on the scores alone: see :func:`tail_level`.

    Parameters
    ----------
    vectors
        returns the vectors of a layer's patch in all pictures, float32 ``[N * V, C]``: those of
        its ``V`` cells that are inspected. It is not called for a patch without any.
    sizes
        height and width of each layer's feature map, in cells.
    grid, radius, coarse_upsampling
        as in :class:`fapm.Config`.
    inside
        per layer bool ``[H * W]``, the cells that are inspected; default: all.
    progress
        called with the number of patches done and of all patches.
    """
    onto = finest(sizes)
    references = np.arange(pictures)
    if pictures > _REFERENCES:
        references = np.linspace(0, pictures - 1, _REFERENCES).round().astype(np.int64)
    layers = []
    inside = inside or [None] * len(sizes)
    for layer, (height, width) in enumerate(sizes):
        cells = cells_by_patch(height, width, grid, inside[layer])
        known = min(_KNOWN, len(references))
        distances = torch.zeros(pictures, height * width, known)
        others = torch.zeros(pictures, height * width, known, dtype=torch.int16)
        around = neighbour_patches(*patch_grid(height, width, grid), radius)
        for patch, near in enumerate(around):
            progress(layer * len(around) + patch + 1, len(sizes) * len(around))
            searched = [p for p in near if len(cells[p])]
            if patch not in searched:
                continue
            by_picture = [vectors(layer, p).view(pictures, len(cells[p]), -1) for p in searched]
            own = by_picture[searched.index(patch)]
            compared = torch.cat(by_picture, dim=1)[references]
            distances[:, cells[patch]], others[:, cells[patch]] = nearest_pictures(
                own, compared, references, known
            )
        index = upsample_index((height, width), onto, coarse_upsampling)
        inspected = torch.from_numpy(np.concatenate(cells))
        layers.append((distances, others, index, inspected))
    shown = layers[sizes.index(onto)][3]
    hidden = np.setdiff1d(np.arange(onto[0] * onto[1]), shown)

    outlying = np.zeros(pictures, np.bool_)
    for _ in range(_ROUNDS):
        unified = torch.zeros(pictures, onto[0] * onto[1])
        for distances, others, index, inspected in layers:
            counts = torch.from_numpy(~outlying[references])[others.int()] & distances.isfinite()
            mean = first_mean(distances, counts, NEAREST)
            unified += mean[:, index] / (float(mean[:, inspected].median()) or 1.0)
        unified[:, hidden] = 0
        worst = unified[:, shown].topk(min(WORST, len(shown)), dim=1).values.mean(dim=1)
        scores = worst.double().numpy()
        found = Outliers(
            scores, unified.view(pictures, *onto).numpy(), tail_level(scores, STAND_OUT)
        )
        if np.array_equal(found.outlying, outlying):
            break
        outlying = found.outlying
    return found


def nearest_pictures(
    queries: Tensor, references: Tensor, numbers: NDArray[np.int64], count: int
) -> tuple[Tensor, Tensor]:
    """Find the pictures that have a vector closest to each query.

    Parameters
    ----------
    queries
        vectors of one patch in all pictures, float ``[N, V, C]``.
    references
        vectors with which they are compared, float ``[R, V', C]``.
    numbers
        numbers of the pictures that are references, int64 ``[R]``: none is compared with itself.

    Returns
    -------
    distances, references
        distances float ``[N, V, count]``, ascending, infinite where there is no other picture; and
        positions in ``numbers``, int16 ``[N, V, count]``.
    """
    pictures, width, channels = queries.shape
    flat = references.reshape(-1, channels)
    centre = flat.mean(dim=0)
    flat, queries = flat - centre, queries - centre
    squares = flat.square().sum(dim=1)  # [R V']
    step = max(1, _DISTANCES // (width * len(flat)))
    own = torch.from_numpy(numbers)
    found: list[Tensor] = []
    closest: list[Tensor] = []
    for start in range(0, pictures, step):
        part = queries[start : start + step]
        products = torch.addmm(squares, part.reshape(-1, channels), flat.T, alpha=-2)
        nearest = products.view(len(part), width, len(references), -1).amin(dim=3)  # [n, V, R]
        nearest += part.square().sum(dim=2, keepdim=True)
        itself = torch.arange(start, start + len(part))[:, None] == own  # [n, R]
        nearest.masked_fill_(itself[:, None], torch.inf)
        best, which = nearest.topk(count, dim=2, largest=False)
        found.append(best.clamp_(min=0).sqrt_())
        closest.append(which.to(torch.int16))
    return torch.cat(found), torch.cat(closest)


def first_mean(distances: Tensor, counts: Tensor, number: int) -> Tensor:
    """Mean of the first ``number`` distances that count, float ``[N, V]``.

    If fewer count, the farther ones are not known, and the last known one stands for them.

    Parameters
    ----------
    distances
        float ``[N, V, k]``, ascending.
    counts
        bool ``[N, V, k]``.
    """
    first = counts & (counts.cumsum(dim=2) <= number)
    last = distances.masked_fill(distances.isinf(), 0).amax(dim=2)
    missing = number - first.sum(dim=2)
    return (distances.masked_fill(~first, 0).sum(dim=2) + missing * last) / number


def tail_level(scores: NDArray[np.float64], share: float) -> float:
    """Level that a ``share`` of good pictures exceeds, if most pictures are good.

    Scores are maxima over cells, so those of good pictures roughly follow a Gumbel distribution.
    Its two parameters come from the quantiles of 10 to 50 % (least squares). Defects score high and
    hardly change these quantiles. The level is never below the median.
    """
    at = np.linspace(0.1, 0.5, 9)
    reduced = -np.log(-np.log(at))
    levels = np.quantile(scores, at, method="hazen")
    scale, location = np.polyfit(reduced, levels, 1)
    return float(max(location - scale * np.log(-np.log1p(-share)), np.median(scores)))


# Fewer pictures do not say what is usual.
FEWEST = 8


def compare_pictures(
    spool: Spool | Rows,
    config: Config,
    inside: Sequence[NDArray[np.bool_] | None],
    progress: Progress,
) -> Outliers:
    """:func:`find_outliers` of the pictures in a spool."""
    return find_outliers(
        spool.patch_vectors,
        [(height, width) for _, height, width in spool.shapes],
        spool.count,
        grid=spool.grid,
        radius=config.radius,
        coarse_upsampling=config.coarse_upsampling,
        inside=inside,
        progress=lambda done, total: progress("compare", done, total),
    )
