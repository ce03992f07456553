"""Fit: normal pictures in; memory banks and thresholds out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.bundle.baseline import Baseline
from fapm.bundle.calibration import calibrate
from fapm.bundle.fitted import Alignment, Fitted
from fapm.config import Config
from fapm.encoder.network import Encoder
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder
from fapm.errors import ConfigError, ImageError
from fapm.fitting.alignment import choose_template
from fapm.fitting.foreground import learned_roi
from fapm.fitting.outliers import FEWEST, compare_pictures
from fapm.fitting.precision import choose_encoder
from fapm.fitting.showing import Showing
from fapm.frames.align import Aligner
from fapm.frames.layout import Layout, layout_of
from fapm.frames.light import Light, learn
from fapm.frames.look import patch_means
from fapm.frames.preparation import Failure, Frame, read_frame
from fapm.frames.roi import Region, drawn_roi, inspected_cells
from fapm.graph.reference import Search
from fapm.memory.memorise import Budget
from fapm.pictures import codec
from fapm.pictures.sources import Picture, picture_names
from fapm.progress import Progress
from fapm.system.parallel import batched, ordered_map
from fapm.training.banks import layer_budgets, memorise_layer
from fapm.training.copies import augmented, turned_back
from fapm.training.cost import expected_cost
from fapm.training.features import BATCH, append_features
from fapm.training.leave_one_out import leave_one_out
from fapm.training.spool import Spool

# What a fit will take is said after so many pictures, and only if it takes longer than that.
_TRIAL = 8 * BATCH
_LONG = 30  # seconds
# Pictures that a precision is chosen by, at most.
SAMPLE = 128


def fit(
    pictures: Sequence[Picture],
    config: Config,
    encoder: Encoder,
    runtime: Runtime,
    *,
    layout: Layout | None = None,
    roi: Region | None = None,
    ignore: Region | None = None,
    max_pixels: int = codec.MAX_PIXELS,
    progress: Progress = lambda stage, done, total: None,
    remark: Callable[[str], None] = lambda text: None,
) -> Fitted:
    """Memorise normal pictures and choose thresholds from them.

    Features are those of the engine and the precision that will run. Pictures that cannot be read
    are left out and listed in ``skipped``.

    Parameters
    ----------
    layout
        of the frames; default: a square that is not cut.
    roi, ignore
        as in :func:`fapm.frames.roi.drawn_roi`; ``roi="auto"`` is learned from the pictures.
    remark
        called with one line before a fit that takes long: its time and memory.

    Raises
    ------
    ImageError
        No picture could be read.
    RoiError
        What is to be inspected cannot be read, or is nothing.
    ConfigError
        ``max_keys`` is less than a key for each patch of each layer, or what is asked for does not
        go together.
    OutputError
        There is no room for the features of so many pictures.
    EngineError
        The engine is not installed, or lacks the precision asked for.
    """
    frames: list[Frame] = []
    skipped: list[Failure] = []  # with full paths, for the error
    left_out: list[Failure] = []  # with short names, for the bundle
    showing = Showing()
    names = picture_names(pictures)
    automatic = isinstance(roi, str) and roi == "auto"
    layout = layout or layout_of(config)
    area = drawn_roi(None if automatic else roi, ignore, config, layout)
    if layout.tiles > 1 and (config.robust or automatic):
        name = "robust" if config.robust else "roi: auto"
        raise ConfigError(f"{name}: takes whole pictures, not tiles; leave it out")
    if config.robust and (automatic or area is not None):
        raise ConfigError(
            "robust: does not go with a region of interest; see what stands out with fapm audit, "
            "and fit without it"
        )

    def read(numbered: tuple[int, Picture]) -> Frame | Failure:
        number, picture = numbered
        return read_frame(
            picture,
            config,
            encoder.spec.interpolation,
            max_pixels=max_pixels,
            layout=layout,
            name=f"array {number}",
            thumbnail=config.thumbnails,
            roi=area,
            light=light,
            aligner=aligner,
            with_look=True,
            turned=True,
        )

    def usable() -> Iterator[Frame]:
        for number, frame in enumerate(ordered_map(read, enumerate(pictures))):
            progress("encode", number + 1, len(pictures))
            if isinstance(frame, Failure):
                skipped.append(frame)
                error = frame.error.replace(frame.source, names[number])
                left_out.append(Failure(names[number], error))
            else:
                showing.add(frame)
                yield replace(frame, name=names[number], turned=())
                for pixels in frame.turned:
                    yield replace(frame, pixels=pixels, turned=())
                for pixels in augmented(frame.pixels, config.augment, (config.seed, number)):
                    yield replace(frame, pixels=pixels, turned=())

    def whole(most: int) -> Iterator[NDArray[np.uint8]]:
        step = max(1, -(-len(pictures) // most))
        numbered = list(enumerate(pictures))[::step]
        return (f.pixels for f in ordered_map(read, numbered) if isinstance(f, Frame))

    def some(most: int) -> Iterator[NDArray[np.uint8]]:
        """Frames; where they are cut, of each another tile."""
        return (layout.cut(frame)[i % layout.tiles] for i, frame in enumerate(whole(most)))

    def sample() -> list[NDArray[np.uint8]]:
        return list(some(SAMPLE))

    light: Light | None = None
    aligner: Aligner | None = None
    # Of each picture: itself, turned, and its copies. Turned ones do not count for the ratio.
    rows, counted = config.rotations + config.augment, 1 + config.augment
    if config.light != "none":
        light = learn(whole(SAMPLE))
    frozen, reason = choose_encoder(encoder, config, runtime, sample)
    remarks = [reason]
    template, reason = choose_template(some, config, frozen, runtime)
    remarks.append(reason)
    if template is not None:
        aligner = Aligner(template)
    if automatic:
        area, reason = learned_roi(sample(), area)
        remarks.append(reason)
    inside = inspected_cells(area, frozen.shapes, config, layout)
    sizes = [layout.side_by_side((height, width)) for _, height, width in frozen.shapes]
    inspected = layout.inspected_tiles(inside, sizes)
    budgets = partial(_budgets, config, layout, inside)
    runner = open_encoder(frozen, runtime)
    started = time.perf_counter()
    with (
        Spool(rows * len(pictures), layout.grid(config.grid), inside) as spool,
        torch.inference_mode(),
    ):
        for batch in batched(usable(), BATCH):
            pixels = [frame.pixels for frame in batch]
            append_features(pixels, config, layout, runner, spool, inspected)
            frames += [replace(f, pixels=np.empty((0, 0, 3), np.uint8)) for f in batch]
            if len(frames) == len(batch):  # the first batch: it warms up
                budgets(spool, counted * len(pictures))
                started = time.perf_counter()
            elif len(frames) == _TRIAL:
                seconds = (time.perf_counter() - started) / (_TRIAL - BATCH)
                planned = budgets(spool, counted * len(pictures))
                cost = expected_cost(rows * len(pictures), seconds, spool.shapes, planned)
                if cost.seconds > _LONG:
                    remark(str(cost))
        if not frames:
            raise ImageError(
                f"none of {len(skipped)} picture{'s' * (len(skipped) > 1)} could be read; "
                f"the first: {skipped[0].error}"
                if skipped
                else "no pictures to fit on"
            )
        remarks += showing.notes()
        frames = frames[::rows]
        kept = list(range(len(frames)))
        if config.robust and len(frames) >= FEWEST:
            found = compare_pictures(spool.select(range(0, spool.count, rows)), config, progress)
            kept = np.flatnonzero(~found.outlying).tolist()
            left_out += [
                Failure(frames[i].name, f"{frames[i].name}: stands out from the others: "
                        f"{found.scores[i]:.3g}, good ones reach {found.cut:.3g} (robust)")
                for i in np.flatnonzero(found.outlying)
            ]  # fmt: skip
            frames = [frames[i] for i in kept]
        features = spool.select([rows * i + copy for i in kept for copy in range(rows)])
        banks = []
        planned = budgets(spool, counted * len(frames))
        for number, (budget, (_, height, width)) in enumerate(
            zip(planned, spool.shapes, strict=True)
        ):
            progress("memorise", number, len(planned))
            vectors = partial(features.patch_vectors, number)
            bank = memorise_layer(vectors, budget, (height, width), config, inside[number], layout)
            lying = [(f.height, f.width) for f in frames]
            banks.append(turned_back(bank, config.rotations, rows, lying))
        progress("memorise", len(planned), len(planned))
        originals = spool.select([rows * i for i in kept])
        distances: list[NDArray[np.float32]] = []
        scores, maxima = leave_one_out(
            Search(config, banks, area.inside if area else None, layout),
            originals,
            progress=progress,
            notice=lambda maps: distances.extend(patch_means(m) for m in maps.numpy()),
        )
    owners = {p for bank in banks for p in bank.pictures.tolist()}
    remarks.append(layout.stretched([(frame.height, frame.width) for frame in frames]))
    return Fitted(
        config=config,
        layout=layout,
        encoder=frozen,
        banks=tuple(banks),
        calibration=calibrate(
            scores,
            maxima,
            false_positive_rate=config.false_positive_rate,
            unsure_rate=config.alert_rate,
        ),
        pictures=tuple(frame.name for frame in frames),
        thumbnails={
            i: frame.thumbnail
            for i, frame in enumerate(frames)
            if frame.thumbnail is not None and i in owners
        },
        skipped=tuple(left_out),
        remarks=tuple(filter(None, remarks)),
        roi=area,
        light=light,
        alignment=None
        if template is None
        else Alignment(
            template,
            np.stack([f.registration.matrix for f in frames if f.registration is not None]),
        ),
        baseline=Baseline.of([f.look for f in frames if f.look is not None], distances),
    )


def _budgets(
    config: Config,
    layout: Layout,
    inside: Sequence[NDArray[np.bool_] | None],
    features: Spool,
    pictures: int,
) -> list[Budget]:
    sizes = [(height, width) for _, height, width in features.shapes]
    return layer_budgets(config, sizes, pictures, inside, layout)
