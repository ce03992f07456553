"""Fit: normal pictures in; memory banks and thresholds out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.bundle.baseline import Baseline
from fapm.bundle.calibration import calibrate
from fapm.bundle.fitted import Fitted
from fapm.config import Config
from fapm.encoder.network import Encoder
from fapm.engines.base import Runtime
from fapm.fitting.outliers import FEWEST, compare_pictures
from fapm.fitting.preparing import prepare
from fapm.fitting.showing import Showing
from fapm.frames.layout import Layout, layout_of
from fapm.frames.look import patch_means
from fapm.frames.preparation import Failure, Frame
from fapm.frames.roi import EVERYTHING, Regions
from fapm.graph.reference import Search
from fapm.memory.bank import MemoryBank
from fapm.memory.memorise import Budget
from fapm.pictures import codec
from fapm.pictures.sources import Picture
from fapm.progress import NOBODY, Listener, Progress
from fapm.training.banks import layer_budgets, memorise_layer
from fapm.training.copies import Copies, turned_back
from fapm.training.cost import expected_cost
from fapm.training.features import BATCH, Encoding, placed, stretched
from fapm.training.leave_one_out import leave_one_out
from fapm.training.spool import Rows, Spool

# What a fit will take is said after so many frames, and only if it takes longer than that.
_TRIAL = 8 * BATCH
_LONG = 30  # seconds


def fit(
    pictures: Sequence[Picture],
    config: Config,
    encoder: Encoder,
    runtime: Runtime,
    *,
    layout: Layout | None = None,
    regions: Regions = EVERYTHING,
    max_pixels: int = codec.MAX_PIXELS,
    listener: Listener = NOBODY,
) -> Fitted:
    """Memorise normal pictures and choose thresholds from them.

    Features are those of the engine and the precision that will run. Pictures that cannot be read
    are left out and listed in ``skipped``.

    Parameters
    ----------
    layout
        of the frames; default: a square that is not cut.
    regions
        the region to inspect; ``roi="auto"`` is learned from the pictures.

    Raises
    ------
    ImageError
        No picture could be read.
    RoiError
        The region cannot be read, or nothing is inside.
    ConfigError
        ``max_keys`` is less than a key for each patch of each layer.
    OutputError
        There is no room for the features of so many pictures.
    EngineError
        The engine is not installed, or lacks the precision asked for.
    """
    layout = layout or layout_of(config)
    prepared = prepare(
        pictures, config, encoder, runtime, layout=layout, regions=regions, max_pixels=max_pixels
    )
    encoding = prepared.encoding(
        config, runtime, max_pixels, copies=Copies.of(config), with_look=True
    )
    with encoding.spool(len(pictures)) as spool, torch.inference_mode():
        forecast, showing = _Forecast(encoding, spool, len(pictures), listener), Showing()
        frames, failures = encoding.encode(
            pictures, spool, progress=listener.progress, watch=forecast, look=showing.add
        )
        kept, outlying = _set_aside(frames, spool, encoding, listener.progress)
        frames, rows = [frames[i] for i in kept], encoding.copies.rows
        features = spool.select([rows * i + copy for i in kept for copy in range(rows)])
        banks = _memorise(features, frames, encoding, listener.progress)
        originals = spool.select([rows * i for i in kept])
        scores, maxima, patches = _calibrate(originals, banks, encoding, listener.progress)
    owners = {p for bank in banks for p in bank.pictures.tolist()}
    return Fitted(
        config=config,
        preparation=prepared.preparation,
        encoder=prepared.encoder,
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
        skipped=(*failures, *outlying),
        remarks=(*prepared.remarks, *showing.notes(), *stretched(layout, frames)),
        places=placed(frames),
        baseline=Baseline.of([f.look for f in frames if f.look is not None], patches),
    )


class _Forecast:
    """Says what a long fit will take, once enough frames are encoded to know."""

    def __init__(self, encoding: Encoding, spool: Spool, pictures: int, listener: Listener) -> None:
        self._encoding, self._spool, self._pictures = encoding, spool, pictures
        self._listener = listener
        self._started = 0.0

    def __call__(self, rows: int) -> None:
        if rows <= BATCH:  # the first batch: it warms up
            _budgets(self._encoding, self._spool, self._pictures)  # refused now, not after hours
            self._started = time.perf_counter()
        elif rows == _TRIAL:
            seconds = (time.perf_counter() - self._started) / (_TRIAL - BATCH)
            planned = _budgets(self._encoding, self._spool, self._pictures)
            frames = self._encoding.copies.rows * self._pictures
            cost = expected_cost(frames, seconds, self._spool.shapes, planned)
            if cost.seconds > _LONG:
                self._listener.remark(str(cost))


def _budgets(encoding: Encoding, features: Spool | Rows, pictures: int) -> list[Budget]:
    sizes = [(height, width) for _, height, width in features.shapes]
    counted = encoding.copies.counted * pictures
    return layer_budgets(encoding.config, sizes, counted, encoding.inside, encoding.layout)


def _set_aside(
    frames: Sequence[Frame], spool: Spool, encoding: Encoding, progress: Progress
) -> tuple[list[int], list[Failure]]:
    """Positions of the pictures to memorise, and those that stand out (``Config.robust``)."""
    if not encoding.config.robust or len(frames) < FEWEST:
        return list(range(len(frames))), []
    originals = spool.select(range(0, spool.count, encoding.copies.rows))
    found = compare_pictures(originals, encoding.config, encoding.inside, progress)
    left_out = [
        Failure(
            frames[i].name,
            f"{frames[i].name}: stands out from the others: {found.scores[i]:.3g}, good ones "
            f"reach {found.cut:.3g} (robust)",
        )
        for i in np.flatnonzero(found.outlying).tolist()
    ]
    return np.flatnonzero(~found.outlying).tolist(), left_out


def _memorise(
    features: Spool | Rows, frames: Sequence[Frame], encoding: Encoding, progress: Progress
) -> list[MemoryBank]:
    """A memory bank per layer."""
    config, copies = encoding.config, encoding.copies
    planned = _budgets(encoding, features, len(frames))
    lying = [(frame.height, frame.width) for frame in frames]
    banks = []
    for number, (budget, shape) in enumerate(zip(planned, features.shapes, strict=True)):
        progress("memorise", number, len(planned))
        vectors = partial(features.patch_vectors, number)
        inside = encoding.inside[number]
        bank = memorise_layer(vectors, budget, shape[1:], config, inside, encoding.layout)
        banks.append(turned_back(bank, copies.rotations, copies.rows, lying))
    progress("memorise", len(planned), len(planned))
    return banks


def _calibrate(
    originals: Spool | Rows,
    banks: Sequence[MemoryBank],
    encoding: Encoding,
    progress: Progress,
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.float32]]]:
    """Leave-one-out scores and largest map values ``[N]``; means of the maps' patches."""
    roi = encoding.preparation.roi
    patches: list[NDArray[np.float32]] = []
    scores, maxima = leave_one_out(
        Search(encoding.config, banks, roi.inside if roi else None, encoding.layout),
        originals,
        progress=progress,
        notice=lambda maps: patches.extend(patch_means(m) for m in maps.numpy()),
    )
    return scores, maxima, patches
