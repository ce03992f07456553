"""PatchCore: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.

The paper is arXiv 2106.08265. Its sections determine the following:

- section 3.1, Equations (1) to (3): each layer's vectors are averaged over their 3 x 3
  neighbourhood. The coarser layer is rescaled bilinearly onto the finer, and both are concatenated.
- section 3.2, Equation (5) and Algorithm 1: the memory is a coreset by greedy minimax facility
  location, chosen on a random linear projection of the vectors (Johnson-Lindenstrauss). The
  projection has 128 dimensions as in the authors' code, unless the vectors have no more than that.
  The first key, which the paper leaves open, is vector 0.
- section 3.3, Equation (6): a cell's score is the distance to its nearest key. Equation (7): the
  score of the picture is that of the worst cell q with key m*, times
  1 - exp |q - m*| / sum over m in N_b(m*) of exp |q - m|, where N_b(m*) are the b keys nearest to
  m*, including m* itself; b = 9 as in anomalib.
- section 3.3: maps are upsampled bilinearly and smoothed by a Gaussian of sigma = 4.

There is one difference. The authors' code also pools channels to 1,024 per layer, which would
stretch those of a small encoder; as in anomalib they are not pooled here. Zeros beyond the border
count in the mean of the neighbourhood, as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from fapm.compare.on_encoder import collect
from fapm.memory.coreset import GreedyCoreset, key_count
from fapm.memory.patches import aggregate

# Cells are compared with all keys; this many distances are held at a time (float32).
_DISTANCES = 2**25


class PatchCore:
    """One memory for the whole picture: a :class:`fapm.compare.on_encoder.FeatureMethod`.

    Parameters
    ----------
    ratio
        share of all vectors kept as keys.
    neighbours
        ``b``, the number of keys around the nearest that weight the image score.
    dimensions
        dimensions of the projection on which the keys are chosen.
    """

    def __init__(
        self, ratio: float = 0.1, *, neighbours: int = 9, dimensions: int = 128, seed: int = 0
    ) -> None:
        self.note = f"{100 * ratio:g} % coreset"
        self._ratio = ratio
        self._neighbours = neighbours
        self._dimensions = dimensions
        self._seed = seed
        self._centre = torch.empty(0)  # [C]
        self._keys = torch.empty(0)  # [K, C], centred: small norms keep the digits of distances
        self._squares = torch.empty(0)  # [K]

    def fit(self, batches: Iterable[list[Tensor]], pictures: int) -> None:
        """Choose the keys."""
        vectors = collect((_vectors(layers) for layers in batches), pictures).flatten(0, 1)
        projected = project(vectors, self._dimensions, self._seed)
        coreset = GreedyCoreset(lambda: projected)
        coreset.extend(key_count(self._ratio, len(vectors)))
        keys = vectors[coreset.indices]
        self._centre = keys.mean(dim=0)
        self._keys = keys - self._centre
        self._squares = self._keys.square().sum(dim=1)

    def score(self, layers: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute image scores ``[B]`` and distances of cells ``[B, H, W]``."""
        height, width = layers[0].shape[-2:]
        queries = _vectors(layers) - self._centre  # [B, P, C]
        distances, keys = self._nearest(queries.flatten(0, 1))
        distances, keys = distances.view(len(queries), -1), keys.view(len(queries), -1)  # [B, P]
        scores = [
            self._weigh(query[worst], key[worst], far[worst])
            for query, key, far in zip(queries, keys, distances, strict=True)
            for worst in [int(far.argmax())]
        ]
        return torch.stack(scores), distances.view(-1, height, width)

    def state(self) -> list[Tensor]:
        """The keys."""
        return [self._keys, self._squares]

    def _nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Find distance ``[Q]`` and number ``[Q]`` of the nearest key."""
        step = max(1, _DISTANCES // len(self._keys))
        keys = torch.cat(
            [
                torch.addmm(self._squares, part, self._keys.T, alpha=-2).argmin(dim=1)
                for part in torch.split(queries, step)
            ]
        )
        return torch.linalg.vector_norm(queries - self._keys[keys], dim=1), keys

    def _weigh(self, query: Tensor, key: Tensor, distance: Tensor) -> Tensor:
        """Apply Equation (7) to the worst cell."""
        count = min(self._neighbours, len(self._keys))
        around = (self._keys - self._keys[key]).square().sum(dim=1).topk(count, largest=False)
        distances = torch.linalg.vector_norm(query - self._keys[around.indices], dim=1)
        score: Tensor = (1 - torch.exp(distance - distances.logsumexp(dim=0))) * distance
        return score


def project(vectors: Tensor, dimensions: int, seed: int) -> Tensor:
    """Project ``[M, C]`` at random to ``[M, dimensions]``; distances stay about the same."""
    channels = vectors.shape[1]
    if channels <= dimensions:
        return vectors
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(channels, dimensions, generator=generator) * math.sqrt(1 / dimensions)
    return vectors @ projection


def _vectors(layers: list[Tensor]) -> Tensor:
    """Locally aware vectors of all layers on the grid of the first, ``[B, P, C]``."""
    aware = [aggregate(layer) for layer in layers]
    finest = aware[0].shape[-2:]
    aligned = [F.interpolate(a, size=finest, mode="bilinear") for a in aware[1:]]
    return torch.cat([aware[0], *aligned], dim=1).permute(0, 2, 3, 1).flatten(1, 2)
