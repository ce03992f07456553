"""Pictures through the encoder that a detector has, into a spool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.config import Config
from fapm.engines.base import EncoderRunner
from fapm.errors import ImageError
from fapm.frames.layout import Layout
from fapm.frames.preparation import Failure, Frame, Preparation
from fapm.graph.reference import aggregate
from fapm.pictures.sources import Picture, picture_names
from fapm.progress import Progress, silent
from fapm.system.parallel import batched, ordered_map
from fapm.training.copies import NO_COPIES, Copies
from fapm.training.spool import Spool

# Small batches: a frame's activations stay in the CPU's cache, measured fastest at 1 to 8.
BATCH = 4


@dataclass(frozen=True)
class Encoding:
    """The way from pictures to features, the same at fit, update and audit.

    Attributes
    ----------
    runner
        the encoder on its engine.
    inside
        per memory bank bool ``[H * W]``, the cells that are inspected; None: all of them.
    sizes
        height and width of the memory banks' maps, in cells.
    copies
        what is memorised with each picture.
    with_look
        whether frames carry the measure of drift.
    """

    config: Config
    preparation: Preparation
    runner: EncoderRunner
    inside: Sequence[NDArray[np.bool_] | None]
    sizes: Sequence[tuple[int, int]]
    max_pixels: int
    copies: Copies = NO_COPIES
    with_look: bool = False

    @property
    def layout(self) -> Layout:
        """Of the frames."""
        return self.preparation.layout

    def spool(self, pictures: int) -> Spool:
        """An empty spool for so many pictures and their copies."""
        grid = self.layout.grid(self.config.grid)
        return Spool(self.copies.rows * pictures, grid, self.inside)

    def encode(
        self,
        pictures: Sequence[Picture],
        spool: Spool,
        *,
        names: Sequence[str] | None = None,
        progress: Progress = silent,
        watch: Callable[[int], None] = lambda rows: None,
        look: Callable[[Frame], None] = lambda frame: None,
    ) -> tuple[list[Frame], list[Failure]]:
        """Features of what can be read into ``spool``; its frames without pixels; the failures.

        Each picture takes :attr:`Copies.rows` rows of the spool, the first of which is its own.

        Parameters
        ----------
        names
            of the pictures in the detector; default: as :func:`picture_names`.
        watch
            called with the number of rows so far, after each batch.
        look
            called with each frame, while it has its pixels.

        Raises
        ------
        ImageError
            No picture could be read.
        """
        names = picture_names(pictures) if names is None else names
        inspected = self.layout.inspected_tiles(self.inside, self.sizes)
        read: list[Frame] = []
        failures: list[Failure] = []
        reasons: list[str] = []  # with full paths

        def usable() -> Iterator[NDArray[np.uint8]]:
            found = ordered_map(self._read, enumerate(pictures))
            for number, frame in enumerate(found):
                progress("encode", number + 1, len(pictures))
                if isinstance(frame, Failure):
                    reasons.append(frame.error)
                    error = frame.error.replace(frame.source, names[number])
                    failures.append(Failure(names[number], error))
                    continue
                look(frame)
                read.append(replace(frame.without_pixels(), name=names[number]))
                yield from (
                    frame.pixels,
                    *frame.turned,
                    *self.copies.disturbed(frame.pixels, number),
                )

        for batch in batched(usable(), BATCH):
            append_features(batch, self.config, self.layout, self.runner, spool, inspected)
            watch(spool.count)
        if not read:
            raise ImageError(
                f"none of {len(reasons)} picture{'s' * (len(reasons) > 1)} could be read; "
                f"the first: {reasons[0]}"
                if reasons
                else "no pictures to learn from"
            )
        return read, failures

    def _read(self, numbered: tuple[int, Picture]) -> Frame | Failure:
        number, picture = numbered
        return self.preparation.read(
            picture,
            max_pixels=self.max_pixels,
            name=f"array {number}",
            thumbnail=self.config.thumbnails,
            with_look=self.with_look,
            turns=self.copies.rotations,
        )


def placed(frames: Sequence[Frame]) -> NDArray[np.float64] | None:
    """The places of parts, float64 ``[N, 2, 3]`` as :attr:`Fitted.places`."""
    found = [frame.registration for frame in frames]
    matrices = [registration.matrix for registration in found if registration is not None]
    return np.stack(matrices) if matrices else None


def stretched(layout: Layout, frames: Sequence[Frame]) -> list[str]:
    """:meth:`fapm.frames.layout.Layout.stretched` of these frames; nothing where it is empty."""
    said = layout.stretched([(frame.height, frame.width) for frame in frames])
    return [said] if said else []


def append_features(
    frames: Sequence[NDArray[np.uint8]],
    config: Config,
    layout: Layout,
    runner: EncoderRunner,
    spool: Spool,
    inspected: NDArray[np.bool_] | None = None,
) -> None:
    """Append to ``spool`` the features of frames RGB uint8 ``[h, w, 3]`` that are memorised.

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
