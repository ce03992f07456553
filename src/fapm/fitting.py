"""Fit: normal pictures in; memory banks and thresholds out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from fapm import images
from fapm.calibration import calibrate
from fapm.config import Config
from fapm.cost import expected_cost
from fapm.encoders import Encoder
from fapm.engines import Runtime, open_encoder
from fapm.errors import ImageError
from fapm.fitted import Fitted
from fapm.frames import Frame, Picture, picture_names, read_frame
from fapm.graph import Search, aggregate
from fapm.memory.memorise import Budget, budgets, build_bank
from fapm.pipeline import Progress, batched, ordered_map
from fapm.precision import choose_encoder
from fapm.prediction import Failure
from fapm.spool import Spool
from fapm.turned import turned_back

# Small batches: a frame's activations stay in the CPU's cache, measured fastest at 1 to 8.
BATCH = 4
# Leave-one-out holds this many distances at a time (float32).
_DISTANCES = 2**25
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
    max_pixels: int = images.MAX_PIXELS,
    progress: Progress = lambda stage, done, total: None,
    remark: Callable[[str], None] = lambda text: None,
) -> Fitted:
    """Memorise normal pictures and choose thresholds from them.

    Features are those of the engine and the precision that will run. Pictures that cannot be read
    are left out and listed in ``skipped``.

    Parameters
    ----------
    remark
        called with one line before a fit that takes long: its time and memory.

    Raises
    ------
    ImageError
        No picture could be read.
    ConfigError
        ``max_keys`` is less than a key for each patch of each layer.
    OutputError
        There is no room for the features of so many pictures.
    EngineError
        The engine is not installed, or lacks the precision asked for.
    """
    frames: list[Frame] = []
    skipped: list[Failure] = []  # with full paths, for the error
    left_out: list[Failure] = []  # with short names, for the bundle
    names = picture_names(pictures)

    def read(numbered: tuple[int, Picture]) -> Frame | Failure:
        number, picture = numbered
        return read_frame(
            picture,
            config,
            encoder.spec.interpolation,
            max_pixels=max_pixels,
            name=f"array {number}",
            thumbnail=config.thumbnails,
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
                yield replace(frame, name=names[number])

    def sample() -> list[NDArray[np.uint8]]:
        step = max(1, -(-len(pictures) // SAMPLE))
        numbered = list(enumerate(pictures))[::step]
        return [f.pixels for f in ordered_map(read, numbered) if isinstance(f, Frame)]

    frozen, reason = choose_encoder(encoder, config, runtime, sample)
    runner = open_encoder(frozen, runtime)
    started = time.perf_counter()
    turns = config.rotations
    with Spool(turns * len(pictures), config.grid) as spool, torch.inference_mode():
        for batch in batched(usable(), BATCH):
            features = runner.features(
                [p for frame in batch for p in (frame.pixels, *frame.turned)]
            )
            spool.append(aggregate([torch.from_numpy(f) for f in features], config))
            frames += [replace(f, pixels=np.empty((0, 0, 3), np.uint8), turned=()) for f in batch]
            if len(frames) == len(batch):  # the first batch: it warms up
                _budgets(config, spool, len(pictures))
                started = time.perf_counter()
            elif len(frames) == _TRIAL:
                seconds = (time.perf_counter() - started) / (_TRIAL - BATCH)
                planned = _budgets(config, spool, len(pictures))
                cost = expected_cost(turns * len(pictures), seconds / turns, spool.shapes, planned)
                if cost.seconds > _LONG:
                    remark(str(cost))
        if not frames:
            raise ImageError(
                f"none of {len(skipped)} picture{'s' * (len(skipped) > 1)} could be read; "
                f"the first: {skipped[0].error}"
                if skipped
                else "no pictures to fit on"
            )
        banks = []
        planned = _budgets(config, spool, len(frames))
        for number, (budget, (_, height, width)) in enumerate(
            zip(planned, spool.shapes, strict=True)
        ):
            progress("memorise", number, len(planned))
            with _one_thread():
                bank = build_bank(
                    partial(spool.patch_vectors, number),
                    budget,
                    height=height,
                    width=width,
                    grid=config.grid,
                    sampling=config.sampling,
                    distance_unit=config.distance_unit,
                    far_threshold=config.far_threshold,
                )
            banks.append(turned_back(bank, turns, [(f.height, f.width) for f in frames]))
        progress("memorise", len(planned), len(planned))
        scores, maxima = leave_one_out(Search(config, banks), spool, progress=progress)
    owners = {p for bank in banks for p in bank.pictures.tolist()}
    return Fitted(
        config=config,
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
        remarks=(reason,) if reason else (),
    )


def leave_one_out(
    search: Search,
    features: Spool,
    *,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score each training picture against the memory without its own keys.

    Parameters
    ----------
    features
        of the ``N`` training pictures, each followed by its turned copies; those are not scored.

    Returns
    -------
    image scores and largest map values, float64 ``[N]``; empty for ``N = 1``.
    """
    turns = search.config.rotations
    count = features.count // turns
    if count == 1:
        return np.empty(0), np.empty(0)
    widest = max(
        len(cells) * len(keys)
        for bank in search.banks
        for cells, keys in bank.search_sets(search.config.radius)
    )
    step = max(1, min(_DISTANCES // widest, features.at_once // turns))
    scores, maxima = [], []
    for start in range(0, count, step):
        rows = range(start, min(start + step, count))
        layers = [
            features.pictures(n, turns * rows.start, turns * rows.stop)[::turns]
            for n in range(len(search.banks))
        ]
        scored = search(layers, without_pictures=rows)
        scores.append(scored.scores)
        maxima.append(scored.maps.amax(dim=(1, 2)))
        progress("calibrate", rows.stop, count)
    return torch.cat(scores).double().numpy(), torch.cat(maxima).double().numpy()


def _budgets(config: Config, features: Spool, pictures: int) -> list[Budget]:
    """How many keys each layer may have once ``pictures`` are memorised."""
    counted = pictures if config.budget_pictures is None else min(pictures, config.budget_pictures)
    return budgets(
        [(height, width) for _, height, width in features.shapes],
        counted,
        grid=config.grid,
        ratio=config.ratio,
        max_keys=config.max_keys,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Greedy sampling is tens of thousands of short steps.

    Sharing each among threads gains nothing (measured), and where another program has one of the
    cores, every step waits for its turn there: fits took ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
