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
from fapm.engines.opening import open_encoder
from fapm.errors import ConfigError, DatasetError
from fapm.fitting.outliers import FEWEST, STAND_OUT, Outliers, compare_pictures, tail_level
from fapm.fitting.precision import choose_encoder
from fapm.frames.layout import layout_of, require_plain
from fapm.frames.light import learn
from fapm.frames.preparation import Failure, Frame, readable_frames
from fapm.memory.geometry import smoothing_matrix
from fapm.pictures import codec
from fapm.pictures.sources import Picture, picture_names
from fapm.progress import Progress
from fapm.training.features import encode
from fapm.training.spool import Spool

# Pictures that the usual light is learned from, at most.
_SAMPLE = 128


@dataclass(frozen=True)
class Audit:
    """Training pictures against each other.

    Attributes
    ----------
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
    frames: tuple[Frame, ...]
    sources: tuple[int, ...]
    found: Outliers
    skipped: tuple[Failure, ...]

    @property
    def order(self) -> NDArray[np.int64]:
        """Pictures from the most to the least unusual, int64 ``[N]``."""
        return np.argsort(-self.found.scores, kind="stable")

    def anomaly_map(self, number: int) -> NDArray[np.float32]:
        """What made the picture's score, float32 ``[H, W]`` in its own geometry."""
        frame = self.frames[number]
        return codec.restore_map(
            self._smooth(self.found.cells[number]),
            frame.height,
            frame.width,
            self.config.resize,
            self.config.crop,
        )

    @property
    def map_level(self) -> float:
        """Level of the maps above which a place stands out, as :attr:`Outliers.cut` for scores."""
        maxima = np.array([self._smooth(cells).max() for cells in self.found.cells], np.float64)
        return tail_level(maxima, STAND_OUT)

    def _smooth(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        rows, columns = (
            smoothing_matrix(n, self.config.input_size, self.config.map_sigma) for n in cells.shape
        )
        return np.asarray(rows @ cells @ columns.T, np.float32)


def audit(
    pictures: Sequence[Picture],
    config: Config,
    runtime: Runtime,
    *,
    max_pixels: int = codec.MAX_PIXELS,
    progress: Progress = lambda stage, done, total: None,
) -> Audit:
    """Score every picture against the others.

    Raises
    ------
    DatasetError
        Fewer than :data:`FEWEST` pictures.
    ConfigError
        Something is asked for that only a fit does.
    FapmError
        As :func:`fapm.fit`.
    """
    if len(pictures) < FEWEST:
        raise DatasetError(
            f"audit: {len(pictures)} pictures do not show what is usual; {FEWEST} or more do"
        )
    require_plain(config, "audit")
    for name in ("align", "rotations", "augment", "robust", "precision"):
        if getattr(config, name) != Config.model_fields[name].default:
            raise ConfigError(f"{name}: audit compares pictures as they are, in fp32; leave it out")
    names = picture_names(pictures)
    encoder, _ = choose_encoder(
        create_encoder(config), config.model_copy(update={"precision": "fp32"}), runtime, list
    )
    light = None
    if config.light != "none":
        step = -(-len(pictures) // _SAMPLE)
        _, seen = readable_frames(
            pictures[::step], config, encoder.spec.interpolation,
            count=_SAMPLE, max_pixels=max_pixels,
        )  # fmt: skip
        light = learn(seen)
    with Spool(len(pictures), config.grid) as spool, torch.inference_mode():
        frames, failures = encode(
            pictures,
            names,
            config,
            encoder.spec.interpolation,
            open_encoder(encoder, runtime),
            spool,
            layout=layout_of(config),
            light=light,
            max_pixels=max_pixels,
            progress=progress,
        )
        found = compare_pictures(spool, config, progress)
    position = {name: number for number, name in enumerate(names)}
    return Audit(
        config,
        tuple(frames),
        tuple(position[frame.name] for frame in frames),
        found,
        tuple(failures),
    )
