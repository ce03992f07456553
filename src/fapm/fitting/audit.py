"""Audit: which training pictures are unlike the others, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.config import Config
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from fapm.errors import DatasetError
from fapm.fitting.outliers import FEWEST, STAND_OUT, Outliers, compare_pictures, tail_level
from fapm.fitting.preparing import prepare
from fapm.frames.preparation import Failure, Frame, Preparation, layout_for, require_command
from fapm.frames.roi import EVERYTHING, Regions
from fapm.pictures import codec
from fapm.pictures.sources import Picture, picture_names
from fapm.progress import Progress, silent


@dataclass(frozen=True)
class Audit:
    """Training pictures against each other.

    Attributes
    ----------
    preparation
        how pictures became frames.
    frames
        of the ``N`` pictures that could be read, without pixels; their order is that of ``found``.
    sources
        position of each among the pictures that were given.
    found
        scores, and the level above which one stands out.
    skipped
        pictures that could not be read.
    """

    config: Config
    preparation: Preparation
    frames: tuple[Frame, ...]
    sources: tuple[int, ...]
    found: Outliers
    skipped: tuple[Failure, ...]

    @property
    def order(self) -> NDArray[np.int64]:
        """Pictures from the most to the least unusual, int64 ``[N]``."""
        return np.argsort(-self.found.scores, kind="stable")

    def anomaly_map(self, number: int) -> NDArray[np.float32]:
        """Anomaly map of the picture, float32 ``[H, W]`` in its own geometry."""
        frame = self.frames[number]
        smoothed = self._smooth(self.found.cells[number])
        restored = self.preparation.restore(smoothed, frame.traces)
        return self.preparation.layout.restore(restored, (frame.height, frame.width))

    @property
    def map_level(self) -> float:
        """Level of the maps above which a place stands out, as :attr:`Outliers.cut` for scores."""
        maxima = np.array([self._smooth(cells).max() for cells in self.found.cells], np.float64)
        return tail_level(maxima, STAND_OUT)

    def _smooth(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = cells.shape
        rows, columns = self.preparation.layout.smoothing((height, width), self.config.map_sigma)
        return np.asarray(rows @ cells @ columns.T, np.float32)


def audit(
    pictures: Sequence[Picture],
    config: Config,
    runtime: Runtime,
    *,
    regions: Regions = EVERYTHING,
    max_pixels: int = codec.MAX_PIXELS,
    progress: Progress = silent,
) -> Audit:
    """Score every picture against the others.

    Raises
    ------
    DatasetError
        Fewer than :data:`FEWEST` pictures.
    FapmError
        As :func:`fapm.fit`.
    """
    if len(pictures) < FEWEST:
        raise DatasetError(
            f"audit: at least {FEWEST} pictures are needed to compare, {len(pictures)} were given"
        )
    require_command(config, "audit")
    config = config.model_copy(update={"precision": "fp32"})
    layout = layout_for(config, pictures)
    encoder = create_encoder(config, layout.tile_shape)
    prepared = prepare(
        pictures, config, encoder, runtime, layout=layout, regions=regions, max_pixels=max_pixels
    )
    encoding = prepared.encoding(config, runtime, max_pixels)
    names = picture_names(pictures)
    with encoding.spool(len(pictures)) as spool, torch.inference_mode():
        frames, failures = encoding.encode(pictures, spool, names=names, progress=progress)
        found = compare_pictures(spool, config, encoding.inside, progress)
    position = {name: number for number, name in enumerate(names)}
    return Audit(
        config,
        prepared.preparation,
        tuple(frames),
        tuple(position[frame.name] for frame in frames),
        found,
        tuple(failures),
    )
