"""SPADE: Cohen and Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", 2020.

The paper is arXiv 2005.02357. Its sections determine the following:

- section 3.2 (nearest pictures): a picture's score is the mean squared distance of its globally
  pooled feature to the K nearest among the good pictures; K = 50 (implementation details).
- section 3.3 (alignment): the gallery holds the features of every cell of these K pictures. A
  cell's score is the mean squared distance to its kappa nearest in the gallery, at any place in
  the picture; kappa = 1 (implementation details).
- section 3.4 (pyramid): a cell's feature concatenates all levels, with equal weights.
- implementation details: maps are smoothed by a Gaussian of sigma = 4.

There are two differences. The pyramid is that of the encoder and layers of the comparison. The
feature of a picture is pooled from the deepest of these layers, since no deeper layer is computed
(the paper pools a Wide-ResNet50's last convolution). Coarser levels are repeated onto the finest;
the paper does not say how their sizes are matched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from fapm.compare.on_encoder import collect
from fapm.memory import geometry
from fapm.memory.patches import concatenate_layers
from fapm.memory.search import pairwise_squared


class Spade:
    """Nearest pictures, then their nearest cells: a
    :class:`fapm.compare.on_encoder.FeatureMethod`.

    Parameters
    ----------
    neighbours
        ``K``, the number of nearest pictures that count and make up the gallery.
    """

    note = "picture score pooled from the deepest layer in use"

    def __init__(self, neighbours: int = 50) -> None:
        self._neighbours = neighbours
        self._pooled = torch.empty(0)  # [N, C]
        self._cells = torch.empty(0)  # [N, H * W, C], centred: small norms keep digits
        self._centre = torch.empty(0)  # [C]
        self._squares = torch.empty(0)  # [N, H * W]

    def fit(self, batches: Iterable[list[Tensor]], pictures: int) -> None:
        """Keep the features of all good pictures."""
        pooled: list[Tensor] = []

        def cells() -> Iterator[Tensor]:
            for layers in batches:
                pooled.append(_pool(layers))
                yield _vectors(layers)

        self._cells = collect(cells(), pictures)
        self._pooled = torch.cat(pooled)
        self._centre = self._cells.mean(dim=(0, 1))
        self._cells -= self._centre
        self._squares = torch.stack([picture.square().sum(dim=1) for picture in self._cells])

    def score(self, layers: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute image scores ``[B]`` and squared distances of cells ``[B, H, W]``."""
        height, width = geometry.finest((f.shape[2], f.shape[3]) for f in layers)
        squared = pairwise_squared(_pool(layers), self._pooled)  # [B, N]
        count = min(self._neighbours, len(self._pooled))
        nearest, pictures = squared.topk(count, largest=False)  # [B, K]
        vectors = _vectors(layers) - self._centre
        cells = [self._nearest(v, p) for v, p in zip(vectors, pictures, strict=True)]
        return nearest.mean(dim=1), torch.stack(cells).view(-1, height, width)

    def state(self) -> list[Tensor]:
        """Pooled features of the pictures, and the features of all cells."""
        return [self._pooled, self._cells]

    def _nearest(self, vectors: Tensor, pictures: Tensor) -> Tensor:
        """Squared distances ``[H * W]`` to the gallery, one picture of it at a time."""
        least = torch.full((len(vectors),), torch.inf)
        nearest = torch.empty_like(vectors)
        for picture in pictures.tolist():
            cells = self._cells[picture]
            # The squares of the vectors are left out: they do not change the order.
            found = torch.addmm(self._squares[picture], vectors, cells.T, alpha=-2).min(dim=1)
            closer = found.values < least
            least = torch.where(closer, found.values, least)
            nearest = torch.where(closer[:, None], cells[found.indices], nearest)
        return (vectors - nearest).square().sum(dim=1)


def _pool(layers: list[Tensor]) -> Tensor:
    """Mean over the cells of the deepest layer, ``[B, C]``."""
    return layers[-1].mean(dim=(2, 3))


def _vectors(layers: list[Tensor]) -> Tensor:
    """Concatenate all layers on the finest grid, ``[B, H * W, C]``."""
    return concatenate_layers(layers).permute(0, 2, 3, 1).flatten(1, 2)
