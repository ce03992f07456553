"""The graph in torch: frames in; scores, maps and worst cells out. The reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
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
    roi
        bool ``[S, S]``, what is inspected of a frame; default: everything. The banks' ``inside``
        are its cells.
    """

    def __init__(
        self,
        config: Config,
        banks: Sequence[MemoryBank],
        roi: NDArray[np.bool_] | None = None,
    ) -> None:
        self.config = config
        self.banks = tuple(banks)
        self.roi = roi
        self._smoothing: dict[tuple[Any, ...], list[Tensor]] = {}

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
        frame = (config.input_size, config.input_size)
        inside = None
        if self.roi is not None:  # a coarse cell may be inspected, and one of its fine ones not
            inside = geometry.inside_cells(self.roi, [finest])[0].reshape(finest)
            outside = torch.from_numpy(~inside.ravel()).to(device)
            unified = unified.masked_fill(outside[:, None], 0)
            levels = unified[:, :, 0].masked_fill(outside, -1)
        if config.score_sigma:
            levels = self._smoothed(unified, finest, finest, config.score_sigma, inside, inside)
            levels = levels.flatten(1)
            levels = levels if self.roi is None else levels.masked_fill(outside, -1)
        scores, cells = scoring.image_score(unified, levels)
        rows = torch.arange(cells.shape[0], device=device)
        at_worst = [(rows, index[cells], 0) for index in indices]
        return Scored(
            scores,
            self._smoothed(unified, finest, frame, config.map_sigma, inside, self.roi),
            cells,
            torch.stack([d[at] for d, at in zip(distances, at_worst, strict=True)], dim=1),
            torch.stack([k[at] for k, at in zip(keys, at_worst, strict=True)], dim=1),
        )

    def _smoothed(
        self,
        unified: Tensor,
        finest: tuple[int, int],
        onto: tuple[int, int],
        sigma: float,
        inside: NDArray[np.bool_] | None,
        shown: NDArray[np.bool_] | None,
    ) -> Tensor:
        """Distances brought to ``[B, *onto]`` and smoothed, where ``shown`` and of ``inside``."""
        key = (finest, onto, sigma, unified.device)
        if key not in self._smoothing:
            matrices = [
                geometry.smoothing_matrix(n, pixels, sigma)
                for n, pixels in zip(finest, onto, strict=True)
            ]
            weights = np.ones((1, 1))
            if inside is not None and shown is not None:
                weights = geometry.map_weights(shown, inside.ravel(), (matrices[0], matrices[1]))
            self._smoothing[key] = [
                torch.from_numpy(m).float().to(unified.device) for m in (*matrices, weights)
            ]
        rows, columns, factor = self._smoothing[key]
        return scoring.anomaly_map(unified, finest, (rows, columns)) * factor


class Graph(nn.Module):
    """Encoder and search in one module: the reference for what other engines compile."""

    def __init__(
        self,
        encoder: Encoder,
        config: Config,
        banks: Sequence[MemoryBank],
        roi: NDArray[np.bool_] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.search = Search(config, banks, roi)

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
