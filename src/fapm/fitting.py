"""Fit: normal pictures in; memory banks and thresholds out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm import images
from fapm.calibration import calibrate
from fapm.config import Config
from fapm.encoders import Encoder
from fapm.engines import Runtime, open_encoder
from fapm.errors import ImageError
from fapm.fitted import Fitted
from fapm.frames import Frame, Picture, picture_names, read_frame
from fapm.graph import Search, aggregate
from fapm.memory.memorise import build_bank
from fapm.pipeline import Progress, batched, ordered_map
from fapm.precision import choose_encoder
from fapm.prediction import Failure

# Small batches: a frame's activations stay in the CPU's cache, measured fastest at 1 to 8.
BATCH = 4
# Leave-one-out holds this many distances at a time (float32).
_DISTANCES = 2**25
# Pictures that an int8 encoder is calibrated on, at most.
SAMPLE = 128


def fit(
    pictures: Sequence[Picture],
    config: Config,
    encoder: Encoder,
    runtime: Runtime,
    *,
    max_pixels: int = images.MAX_PIXELS,
    progress: Progress = lambda stage, done, total: None,
) -> Fitted:
    """Memorise normal pictures and choose thresholds from them.

    Features are those of the engine and the precision that will run. Pictures that cannot be read
    are left out and listed in ``skipped``.

    Raises
    ------
    ImageError
        No picture could be read.
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

    frozen, remark = choose_encoder(encoder, config, runtime, sample)
    runner = open_encoder(frozen, runtime)
    layers: list[Tensor] = []
    with torch.inference_mode():
        for batch in batched(usable(), BATCH):
            raw = runner.features([frame.pixels for frame in batch])
            features = aggregate([torch.from_numpy(f) for f in raw], config)
            # One store for all pictures, filled as they come: nothing is held twice.
            layers = layers or [_store(len(pictures), f) for f in features]
            for store, f in zip(layers, features, strict=True):
                store[len(frames) : len(frames) + len(batch)] = f
            frames += [replace(f, pixels=np.empty((0, 0, 3), np.uint8)) for f in batch]
        if not frames:
            raise ImageError(
                f"none of {len(skipped)} picture{'s' * (len(skipped) > 1)} could be read; "
                f"the first: {skipped[0].error}"
                if skipped
                else "no pictures to fit on"
            )
        layers = [store[: len(frames)] for store in layers]
        banks = []
        for number, store in enumerate(layers):
            progress("memorise", number, len(layers))
            with _one_thread():
                bank = build_bank(
                    store,
                    grid=config.grid,
                    ratio=config.ratio,
                    sampling=config.sampling,
                    distance_unit=config.distance_unit,
                    far_threshold=config.far_threshold,
                )
            banks.append(bank)
        progress("memorise", len(layers), len(layers))
        scores, maxima = leave_one_out(Search(config, banks), layers, progress=progress)
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
        remarks=(remark,) if remark else (),
    )


def leave_one_out(
    search: Search,
    layers: Sequence[Tensor],
    *,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score each training picture against the memory without its own keys.

    Parameters
    ----------
    layers
        features of the ``N`` training pictures, per layer float32 ``[N, C, H, W]``.

    Returns
    -------
    image scores and largest map values, float64 ``[N]``; empty for ``N = 1``.
    """
    count = len(layers[0])
    if count == 1:
        return np.empty(0), np.empty(0)
    widest = max(
        len(cells) * len(keys)
        for bank in search.banks
        for cells, keys in bank.search_sets(search.config.radius)
    )
    step = max(1, _DISTANCES // widest)
    scores, maxima = [], []
    for start in range(0, count, step):
        rows = range(start, min(start + step, count))
        scored = search([f[start : start + step] for f in layers], without_pictures=rows)
        scores.append(scored.scores)
        maxima.append(scored.maps.amax(dim=(1, 2)))
        progress("calibrate", rows.stop, count)
    return torch.cat(scores).double().numpy(), torch.cat(maxima).double().numpy()


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


def _store(count: int, like: Tensor) -> Tensor:
    return torch.empty(
        (count, *like.shape[1:]), dtype=like.dtype, memory_format=torch.channels_last
    )
