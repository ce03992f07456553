"""Decisions before a fit memorises: stages, precision and region, from a few pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.encoder.network import Encoder
from fapm.encoder.spec import FrozenEncoder
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder
from fapm.fitting.alignment import choose_alignment
from fapm.fitting.foreground import learned_roi
from fapm.fitting.precision import choose_encoder
from fapm.frames.align import Align
from fapm.frames.layout import Layout
from fapm.frames.preparation import STAGES, Failure, Frame, Preparation
from fapm.frames.roi import Regions, drawn_roi, inspected_cells
from fapm.frames.stage import Sample, Stage
from fapm.pictures.sources import Picture
from fapm.system.parallel import ordered_map, spread
from fapm.training.copies import NO_COPIES, Copies
from fapm.training.features import Encoding

# Pictures that an alignment is judged by, at most: the size of the memory matters.
SAMPLE = 320
# Pictures that stages are learned from, and a precision and a region chosen by, at most.
_FEW = 128
# Of the frames of these, at most; large ones, which are cut into tiles, are then fewer.
_BYTES = 400_000_000


@dataclass(frozen=True)
class Prepared:
    """The decisions of a fit.

    Attributes
    ----------
    remarks
        one sentence each on what was decided.
    """

    preparation: Preparation
    encoder: FrozenEncoder
    remarks: tuple[str, ...]

    def encoding(
        self,
        config: Config,
        runtime: Runtime,
        max_pixels: int,
        *,
        copies: Copies = NO_COPIES,
        with_look: bool = False,
    ) -> Encoding:
        """The encoding of all pictures."""
        layout, shapes = self.preparation.layout, self.encoder.shapes
        return Encoding(
            config,
            self.preparation,
            open_encoder(self.encoder, runtime),
            inside=inspected_cells(self.preparation.roi, shapes, config, layout),
            sizes=[layout.side_by_side((height, width)) for _, height, width in shapes],
            max_pixels=max_pixels,
            copies=copies,
            with_look=with_look,
        )


def prepare(
    pictures: Sequence[Picture],
    config: Config,
    encoder: Encoder,
    runtime: Runtime,
    *,
    layout: Layout,
    regions: Regions,
    max_pixels: int,
) -> Prepared:
    """Choose how pictures become frames, and the encoder that will see them.

    A sample of the pictures is decoded, once. Stages are learned from it in their order, each from
    frames that the stages before have changed.

    Raises
    ------
    RoiError
        A region cannot be read, or nothing is left to inspect.
    EngineError
        The engine or the processor lacks the precision that is asked for.
    """
    drawn = drawn_roi(None if regions.automatic else regions.roi, regions.ignore, layout)
    preparation = Preparation(layout, encoder.spec.interpolation, roi=drawn)
    frames: list[NDArray[np.uint8]] = []
    if _needs_sample(config, regions):
        most = SAMPLE if Align.wanted(config) else _FEW
        frames = _sample(pictures, preparation, most, max_pixels)
    for kind in STAGES:
        if kind is not Align and kind.wanted(config) and frames:
            sample = Sample(config, layout, preparation.interpolation, spread(frames, _FEW))
            preparation, frames = _with_stage(preparation, kind.learn(sample), frames)
    frozen, precision_reason = choose_encoder(
        encoder, config, runtime, lambda: _tiles(spread(frames, _FEW), layout)
    )
    aligned, align_reason = choose_alignment(frames, config, frozen, runtime)
    frames = list(spread(frames, _FEW))
    if aligned is not None:
        preparation, frames = _with_stage(preparation, aligned, frames)
    roi_reason = ""
    if regions.automatic and frames:
        roi, roi_reason = learned_roi(frames, drawn)
        preparation = replace(preparation, roi=roi)
    remarks = tuple(filter(None, (precision_reason, align_reason, roi_reason)))
    return Prepared(preparation, frozen, remarks)


def _needs_sample(config: Config, regions: Regions) -> bool:
    quantised = config.precision in ("auto", "int8")
    return quantised or regions.automatic or any(kind.wanted(config) for kind in STAGES)


def _with_stage(
    preparation: Preparation, stage: Stage, frames: Sequence[NDArray[np.uint8]]
) -> tuple[Preparation, list[NDArray[np.uint8]]]:
    """One more stage behind the others, and frames changed by it."""
    changed = [stage.apply(frame)[0] for frame in frames]
    return replace(preparation, stages=(*preparation.stages, stage)), changed


def _sample(
    pictures: Sequence[Picture], preparation: Preparation, most: int, max_pixels: int
) -> list[NDArray[np.uint8]]:
    """Frames of evenly spread pictures, RGB uint8 ``[h, w, 3]``, before any stage."""
    height, width = preparation.layout.shape
    most = min(most, max(1, _BYTES // (3 * height * width)))

    def read(picture: Picture) -> Frame | Failure:
        return preparation.read(picture, max_pixels=max_pixels)

    found = ordered_map(read, spread(pictures, most))
    return [frame.pixels for frame in found if isinstance(frame, Frame)]


def _tiles(frames: Sequence[NDArray[np.uint8]], layout: Layout) -> list[NDArray[np.uint8]]:
    """Inputs of the encoder, from frames: of each another tile, where they are cut."""
    return [layout.cut(frame)[i % layout.tiles] for i, frame in enumerate(frames)]
