"""The graph: frames in; scores, maps and worst cells out. What engines compile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fapm.config import Config
from fapm.encoders import Encoder
from fapm.memory import bank, patches, scoring


class Scored(NamedTuple):
    """What the graph says of ``B`` frames.

    Attributes
    ----------
    scores
        float32 ``[B]``, raw.
    maps
        float32 ``[B, S, S]`` in the frames' geometry, raw.
    cells
        int64 ``[B]``, the worst cell ``y * W + x`` on the finest grid.
    distances, keys
        per layer at the worst cell: float32 ``[B, L]`` distance to the nearest key and int64
        ``[B, L]`` that key's row in the layer's bank.
    """

    scores: Tensor
    maps: Tensor
    cells: Tensor
    distances: Tensor
    keys: Tensor


class Graph(nn.Module):
    """Encoder, search and scoring in one module. ``banks`` are set once they are built."""

    def __init__(
        self, encoder: Encoder, config: Config, banks: Sequence[bank.MemoryBank] = ()
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.banks = tuple(banks)
        self._smoothing: dict[tuple[int, int], Tensor] = {}

    def features(self, frames: Tensor) -> list[Tensor]:
        """What is memorised and compared, per layer float32 ``[B, C, H, W]``.

        Parameters
        ----------
        frames
            RGB uint8 ``[B, S, S, 3]``.
        """
        features = [patches.aggregate(f) for f in self.encoder(frames)]
        if self.config.layer_wise:
            return features
        return [patches.concatenate_layers(features)]

    def forward(self, frames: Tensor) -> Scored:
        """Score frames, RGB uint8 ``[B, S, S, 3]``."""
        return self.score(self.features(frames))

    def score(
        self, features: Sequence[Tensor], without_pictures: Sequence[int] | None = None
    ) -> Scored:
        """Score what :meth:`features` gave.

        Parameters
        ----------
        without_pictures
            per row of the batch a training picture whose keys do not count (leave-one-out).
        """
        sizes = [(b.height, b.width) for b in self.banks]
        finest = max(sizes, key=lambda size: size[0] * size[1])
        indices = [
            scoring.upsample_index(size, finest, self.config.coarse_upsampling) for size in sizes
        ]
        distances, keys = [], []
        for layer, memory in zip(features, self.banks, strict=True):
            found = bank.nearest_keys(
                layer,
                memory,
                count=self.config.neighbours,
                radius=self.config.radius,
                without_pictures=without_pictures,
            )
            distances.append(found[0])
            keys.append(found[1])
        unified = scoring.unify(distances, indices)
        scores, cells = scoring.image_score(unified)
        smoothing = (self._smoothing_matrix(finest[0]), self._smoothing_matrix(finest[1]))
        rows = torch.arange(len(cells))
        at_worst = [(rows, index[cells], 0) for index in indices]
        return Scored(
            scores,
            scoring.anomaly_map(unified, finest, smoothing),
            cells,
            torch.stack([d[at] for d, at in zip(distances, at_worst, strict=True)], dim=1),
            torch.stack([k[at] for k, at in zip(keys, at_worst, strict=True)], dim=1),
        )

    def _smoothing_matrix(self, cells: int) -> Tensor:
        size = self.encoder.spec.input_size
        if (cells, size) not in self._smoothing:
            matrix = scoring.smoothing_matrix(cells, size, self.config.map_sigma)
            self._smoothing[cells, size] = torch.from_numpy(matrix).float()
        return self._smoothing[cells, size]
