"""The graph in torch: frames in; scores, maps and worst cells out. The reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fapm.config import Config
from fapm.encoders import Encoder
from fapm.memory import geometry, patches, scoring, search
from fapm.memory.bank import MemoryBank


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


class Search:
    """Everything behind the encoder: feature maps in; scores, maps and worst cells out.

    Parameters
    ----------
    banks
        a memory per layer; one for all layers if ``config.layer_wise`` is off.
    """

    def __init__(self, config: Config, banks: Sequence[MemoryBank]) -> None:
        self.config = config
        self.banks = tuple(banks)
        self._smoothing: dict[tuple[int, int, torch.device], Tensor] = {}

    def __call__(
        self, features: Sequence[Tensor], without_pictures: Sequence[int] | None = None
    ) -> Scored:
        """Score what :func:`aggregate` gave.

        Parameters
        ----------
        without_pictures
            per row of the batch a training picture whose keys do not count (leave-one-out).
        """
        device = features[0].device
        sizes = [(b.height, b.width) for b in self.banks]
        finest = max(sizes, key=lambda size: size[0] * size[1])
        indices = [
            torch.from_numpy(
                geometry.upsample_index(size, finest, self.config.coarse_upsampling)
            ).to(device)
            for size in sizes
        ]
        distances, keys = [], []
        for layer, memory in zip(features, self.banks, strict=True):
            found = search.nearest_keys(
                layer,
                memory,
                count=self.config.neighbours,
                radius=self.config.radius,
                without_pictures=without_pictures,
            )
            distances.append(found[0])
            keys.append(found[1])
        unified = scoring.unify(distances, indices)
        config, levels = self.config, None
        if config.score_sigma:
            smoothing = [self._smooth(n, n, config.score_sigma, device) for n in finest]
            levels = scoring.anomaly_map(unified, finest, (smoothing[0], smoothing[1])).flatten(1)
        scores, cells = scoring.image_score(unified, levels)
        smoothing = [self._smooth(n, config.input_size, config.map_sigma, device) for n in finest]
        rows = torch.arange(len(cells), device=device)
        at_worst = [(rows, index[cells], 0) for index in indices]
        return Scored(
            scores,
            scoring.anomaly_map(unified, finest, (smoothing[0], smoothing[1])),
            cells,
            torch.stack([d[at] for d, at in zip(distances, at_worst, strict=True)], dim=1),
            torch.stack([k[at] for k, at in zip(keys, at_worst, strict=True)], dim=1),
        )

    def _smooth(self, cells: int, pixels: int, sigma: float, device: torch.device) -> Tensor:
        if (cells, pixels, device) not in self._smoothing:
            matrix = geometry.smoothing_matrix(cells, pixels, sigma)
            self._smoothing[cells, pixels, device] = torch.from_numpy(matrix).float().to(device)
        return self._smoothing[cells, pixels, device]


class Graph(nn.Module):
    """Encoder and search in one module: the reference for what other engines compile."""

    def __init__(self, encoder: Encoder, config: Config, banks: Sequence[MemoryBank]) -> None:
        super().__init__()
        self.encoder = encoder
        self.search = Search(config, banks)

    def features(self, frames: Tensor) -> list[Tensor]:
        """What is memorised and compared, per layer float32 ``[B, C, H, W]``.

        Parameters
        ----------
        frames
            RGB uint8 ``[B, S, S, 3]``.
        """
        return aggregate(self.encoder(frames), self.search.config)

    def forward(self, frames: Tensor) -> Scored:
        """Score frames, RGB uint8 ``[B, S, S, 3]``."""
        return self.search(self.features(frames))


def aggregate(features: Sequence[Tensor], config: Config) -> list[Tensor]:
    """What is memorised and compared of the encoder's feature maps ``[B, C, H, W]``."""
    aggregated = [patches.aggregate(f) for f in features]
    return aggregated if config.layer_wise else [patches.concatenate_layers(aggregated)]
