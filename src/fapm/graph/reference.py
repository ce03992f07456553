"""The graph in torch: frames in; scores, maps and worst cells out. The reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fapm.config import Config
from fapm.encoder.network import Encoder
from fapm.frames.layout import Layout, layout_of
from fapm.memory import geometry, patches, scoring, search
from fapm.memory.bank import MemoryBank


class ScoredTensors(NamedTuple):
    """The fields of :class:`fapm.graph.scored.Scored`, as tensors on the graph's device."""

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
        bool ``[h, w]``, what is inspected of a frame; default: everything. The banks' ``inside``
        are its cells.
    layout
        of the frames; default: a square that is not cut.
    """

    def __init__(
        self,
        config: Config,
        banks: Sequence[MemoryBank],
        roi: NDArray[np.bool_] | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.config = config
        self.banks = tuple(banks)
        self.roi = roi
        self.layout = layout or layout_of(config)
        self._smoothing: dict[tuple[Any, ...], list[Tensor]] = {}

    def __call__(
        self, features: Sequence[Tensor], without_pictures: Sequence[int] | None = None
    ) -> ScoredTensors:
        """Score what :func:`aggregate` gave.

        Parameters
        ----------
        without_pictures
            per row of the batch a training picture whose keys do not count (leave-one-out).
        """
        device = features[0].device
        sizes = [(b.height, b.width) for b in self.banks]
        finest = geometry.finest(sizes)
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
        if self.roi is not None:  # a coarse cell may be inspected, and one of its fine ones not
            (inside,) = self.layout.inside_cells(self.roi, [finest])
            outside = torch.from_numpy(~inside).to(device)
            unified = unified.masked_fill(outside[:, None], 0)
            levels = unified[:, :, 0].masked_fill(outside, -1)
        if config.score_sigma:
            levels = self._smoothed(unified, finest, on_map=False)
            levels = levels.flatten(1)
            levels = levels if self.roi is None else levels.masked_fill(outside, -1)
        scores, cells = scoring.image_score(unified, levels)
        rows = torch.arange(cells.shape[0], device=device)
        at_worst = [(rows, index[cells], 0) for index in indices]
        return ScoredTensors(
            scores,
            self._smoothed(unified, finest, on_map=True),
            cells,
            torch.stack([d[at] for d, at in zip(distances, at_worst, strict=True)], dim=1),
            torch.stack([k[at] for k, at in zip(keys, at_worst, strict=True)], dim=1),
        )

    def _smoothed(self, unified: Tensor, finest: tuple[int, int], *, on_map: bool) -> Tensor:
        """Distances smoothed, as the map or as levels of cells; of those inspected, and there."""
        key = (finest, on_map, unified.device)
        if key not in self._smoothing:
            smooth = (
                self.layout.smoothing(finest, self.config.map_sigma)
                if on_map
                else self.layout.cell_smoothing(finest, self.config.score_sigma)
            )
            weights = np.ones((1, 1))
            if self.roi is not None:
                (inside,) = self.layout.inside_cells(self.roi, [finest])
                shown = self.layout.on_map(self.roi) if on_map else inside.reshape(finest)
                weights = geometry.map_weights(shown, inside, smooth)
            self._smoothing[key] = [
                torch.from_numpy(m).float().to(unified.device) for m in (*smooth, weights)
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
        layout: Layout | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.search = Search(config, banks, roi, layout)

    def features(self, frames: Tensor) -> list[Tensor]:
        """Features that are memorised and compared, per layer float32 ``[B, C, H, W]``.

        Parameters
        ----------
        frames
            RGB uint8 ``[B, h, w, 3]``.
        """
        layout = self.search.layout
        height, width = layout.tile_shape
        tiles = [
            self.encoder(frames[:, top : top + height, left : left + width])
            for top in layout.rows.starts
            for left in layout.columns.starts
        ]
        features = [torch.stack(each, dim=1).flatten(0, 1) for each in zip(*tiles, strict=True)]
        return aggregate(features, self.search.config, layout.tiling)

    def forward(self, frames: Tensor) -> ScoredTensors:
        """Score frames, RGB uint8 ``[B, h, w, 3]``."""
        return self.search(self.features(frames))


def aggregate(
    features: Sequence[Tensor], config: Config, tiling: tuple[int, int] = (1, 1)
) -> list[Tensor]:
    """Features to memorise and compare, from the encoder's feature maps ``[B, C, H, W]``.

    Parameters
    ----------
    tiling
        rows and columns of tiles, whose maps are then laid side by side.
    """
    aggregated = [patches.side_by_side(patches.aggregate(f), tiling) for f in features]
    return aggregated if config.layer_wise else [patches.concatenate_layers(aggregated)]
