"""Pictures through the encoder that a detector has, into a spool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.config import Config
from fapm.engines.base import EncoderRunner
from fapm.errors import ImageError
from fapm.frames.align import Aligner
from fapm.frames.layout import Layout
from fapm.frames.light import Light
from fapm.frames.preparation import Failure, Frame, read_frame
from fapm.frames.roi import Roi
from fapm.graph.reference import aggregate
from fapm.pictures.codec import Interpolation
from fapm.pictures.sources import Picture
from fapm.progress import Progress
from fapm.system.parallel import batched, ordered_map
from fapm.training.spool import Spool

# Small batches: a frame's activations stay in the CPU's cache, measured fastest at 1 to 8.
BATCH = 4


def encode(
    pictures: Sequence[Picture],
    names: Sequence[str],
    config: Config,
    interpolation: Interpolation,
    runner: EncoderRunner,
    spool: Spool,
    *,
    layout: Layout,
    roi: Roi | None = None,
    inspected: NDArray[np.bool_] | None = None,
    light: Light | None = None,
    aligner: Aligner | None = None,
    max_pixels: int,
    progress: Progress,
) -> tuple[list[Frame], list[Failure]]:
    """Features of what can be read into ``spool``; its frames without pixels, and the failures.

    Parameters
    ----------
    roi
        pictures of another shape than it was drawn on cannot be used.
    inspected
        as in :func:`append_features`.

    Raises
    ------
    ImageError
        No picture could be read.
    """
    frames: list[Frame] = []
    failures: list[Failure] = []

    def read(numbered: tuple[int, Picture]) -> Frame | Failure:
        number, picture = numbered
        return read_frame(
            picture,
            config,
            interpolation,
            max_pixels=max_pixels,
            name=names[number],
            layout=layout,
            thumbnail=config.thumbnails,
            roi=roi,
            light=light,
            aligner=aligner,
        )

    def usable() -> Iterator[Frame]:
        for number, frame in enumerate(ordered_map(read, enumerate(pictures))):
            progress("encode", number + 1, len(pictures))
            if isinstance(frame, Failure):
                error = frame.error.replace(frame.source, names[number])
                failures.append(Failure(names[number], error))
            else:
                yield replace(frame, name=names[number])

    for batch in batched(usable(), BATCH):
        append_features([frame.pixels for frame in batch], config, layout, runner, spool, inspected)
        frames += [replace(f, pixels=np.empty((0, 0, 3), np.uint8)) for f in batch]
    if not frames:
        raise ImageError(
            f"none of {len(failures)} picture{'s' * (len(failures) > 1)} could be read; "
            f"the first: {failures[0].error}"
            if failures
            else "no pictures"
        )
    return frames, failures


def append_features(
    frames: Sequence[NDArray[np.uint8]],
    config: Config,
    layout: Layout,
    runner: EncoderRunner,
    spool: Spool,
    inspected: NDArray[np.bool_] | None = None,
) -> None:
    """What is memorised of frames RGB uint8 ``[h, w, 3]``, onto the end of ``spool``.

    Parameters
    ----------
    inspected
        bool ``[T]``, tiles that have cells that are inspected; default: all.
    """
    if layout.tiles == 1:
        batches = [runner.features(frames)]
    else:  # frame by frame: the features of a large one are large themselves
        wanted = np.ones(layout.tiles, np.bool_) if inspected is None else inspected
        batches = [_encode_tiles(runner, layout.cut(frame), wanted) for frame in frames]
    for features in batches:
        spool.append(aggregate([torch.from_numpy(f) for f in features], config, layout.tiling))


def _encode_tiles(
    runner: EncoderRunner, tiles: Sequence[NDArray[np.uint8]], inspected: NDArray[np.bool_]
) -> list[NDArray[np.float32]]:
    """Per layer ``[T, C, H, W]`` of ``T`` tiles; zeros for those of which nothing is inspected."""
    found = runner.features([tile for tile, seen in zip(tiles, inspected, strict=True) if seen])
    whole = [np.zeros((len(tiles), *layer.shape[1:]), np.float32) for layer in found]
    for layer, rows in zip(whole, found, strict=True):
        layer[inspected] = rows
    return whole
