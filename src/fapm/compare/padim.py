"""PaDiM: Defard et al., "PaDiM: a Patch Distribution Modeling Framework", ICPR workshops 2021.

The paper is arXiv 2011.08785. Its sections determine the following:

- section III.A: a position's embedding concatenates the activation vectors of all layers that lie
  there, so coarser ones repeat. Only d of its channels are kept, chosen at random and once for all
  positions; d = 100 as with the paper's ResNet18.
- section III.B, Equation (1): at each position the embeddings of the N good pictures give a mean
  and a sample covariance (1 / (N - 1)), to which 0.01 I is added.
- section III.C, Equation (2): a position's score is the Mahalanobis distance to its own Gaussian;
  the score of the picture is the maximum of these distances.
- section IV: the map is upsampled and smoothed by a Gaussian of sigma = 4.

There are two differences. The layers are those of the comparison (the paper uses three, at strides
4, 8 and 16). Maps are upsampled bilinearly, like all maps of the comparison.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from fapm.compare.on_encoder import collect, refuse_too_large
from fapm.memory import geometry
from fapm.memory.patches import concatenate_layers

# Covariances are computed for this many positions at a time, in float64.
_POSITIONS = 64


class Padim:
    """A Gaussian per position: a :class:`fapm.compare.on_encoder.FeatureMethod`.

    Parameters
    ----------
    channels
        ``d``, the number of channels that are kept; if there are fewer, all are kept.
    """

    note = ""

    def __init__(self, channels: int = 100, *, seed: int = 0, epsilon: float = 0.01) -> None:
        self._count = channels
        self._seed = seed
        self._epsilon = epsilon
        self._channels = torch.empty(0, dtype=torch.int64)  # [d]
        self._mean = torch.empty(0)  # [P, d]
        self._whitening = torch.empty(0)  # [P, d, d], W with W^T W = inverse covariance

    def fit(self, batches: Iterable[list[Tensor]], pictures: int) -> None:
        """Estimate the Gaussian of every position."""
        vectors = collect((self._embed(layers) for layers in batches), pictures)  # [N, P, d]
        count, positions, channels = vectors.shape
        refuse_too_large(4 * positions * channels**2, f"the covariances of {positions:,} positions")
        self._mean = vectors.mean(dim=0, dtype=torch.float64).float()
        self._whitening = torch.empty(positions, channels, channels)
        unit = torch.eye(channels, dtype=torch.float64)
        for start in range(0, positions, _POSITIONS):
            part = slice(start, start + _POSITIONS)
            given = vectors[:, part].double().transpose(0, 1)  # [p, N, d]
            centred = given - given.mean(dim=1, keepdim=True)
            covariance = centred.mT @ centred / max(count - 1, 1) + self._epsilon * unit
            # x^T S^-1 x = |L^-1 x|^2 with S = L L^T: never negative, and it keeps more digits.
            factor = torch.linalg.cholesky(covariance)
            self._whitening[part] = torch.linalg.solve_triangular(factor, unit, upper=False).float()

    def score(self, layers: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the largest distances ``[B]`` and those of all positions ``[B, H, W]``."""
        height, width = geometry.finest((f.shape[2], f.shape[3]) for f in layers)
        off = (self._embed(layers) - self._mean).permute(1, 2, 0)  # [P, d, B]
        distances = torch.linalg.vector_norm(self._whitening @ off, dim=1).T  # [B, P]
        return distances.amax(dim=1), distances.reshape(-1, height, width)

    def state(self) -> list[Tensor]:
        """Means, and covariances as their inverted factors."""
        return [self._mean, self._whitening]

    def _embed(self, layers: list[Tensor]) -> Tensor:
        """Select the kept channels of every position, ``[B, P, d]``."""
        whole = concatenate_layers(layers)
        if not len(self._channels):
            available = whole.shape[1]
            chosen = np.random.default_rng(self._seed).permutation(available)[: self._count]
            self._channels = torch.from_numpy(np.sort(chosen))
        return whole[:, self._channels].permute(0, 2, 3, 1).flatten(1, 2)
