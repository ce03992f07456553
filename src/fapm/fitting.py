"""Fit: normal pictures in; memory banks and thresholds out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm import images
from fapm.calibration import Calibration, calibrate
from fapm.config import Config
from fapm.cost import expected_cost
from fapm.datasets import list_images, load_dataset
from fapm.encoders import Encoder
from fapm.errors import ImageError
from fapm.graph import Graph
from fapm.memory.bank import Budget, MemoryBank, budgets, build_bank
from fapm.pipeline import batched, ordered_map
from fapm.prediction import Failure
from fapm.spool import Spool

Picture: TypeAlias = "str | Path | NDArray[np.uint8]"
# Called with a stage's name, how much of it is done, and how much there is.
Progress: TypeAlias = Callable[[str, int, int], None]

# Small batches: a frame's activations stay in the CPU's cache, measured fastest at 1 to 8.
BATCH = 4
_THUMBNAIL = 160  # pixels of the longer side
# Leave-one-out holds this many distances at a time (float32).
_DISTANCES = 2**25
# What a fit will take is said after so many pictures, and only if it takes longer than that.
_TRIAL = 8 * BATCH
_LONG = 30  # seconds


@dataclass(frozen=True)
class Frame:
    """A picture made ready: RGB uint8 ``[S, S, 3]``, its name, and its size before."""

    name: str
    pixels: NDArray[np.uint8]
    height: int
    width: int
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class Fitted:
    """Everything a detector knows after fit; what a bundle holds.

    Attributes
    ----------
    pictures
        names of the training pictures; keys refer to them by position.
    thumbnails
        JPEG by position in ``pictures``, for those that own keys.
    skipped
        training pictures that could not be read.
    """

    config: Config
    encoder: Encoder
    banks: tuple[MemoryBank, ...]
    calibration: Calibration
    pictures: tuple[str, ...]
    thumbnails: dict[int, bytes]
    skipped: tuple[Failure, ...]

    @cached_property
    def graph(self) -> Graph:
        """What scores frames."""
        return Graph(self.encoder, self.config, self.banks)


def read_frame(
    picture: Picture,
    config: Config,
    interpolation: images.Interpolation,
    *,
    max_pixels: int,
    name: str = "array",
    thumbnail: bool = False,
) -> Frame | Failure:
    """Decode and resize one picture; a :class:`Failure` if it cannot be used.

    ``name`` is what an array is called; a file is called by its path.
    """
    try:
        if isinstance(picture, (str, Path)):
            name = str(picture)
            pixels = images.read_image(picture, max_pixels)
        else:
            pixels = images.as_image(picture, name)
    except ImageError as error:
        return Failure(name, str(error))
    return Frame(
        name,
        images.prepare(pixels, config.resize, config.crop, interpolation),
        pixels.shape[0],
        pixels.shape[1],
        _thumbnail(pixels) if thumbnail else None,
    )


def stack(frames: Sequence[Frame]) -> Tensor:
    """Frames as one batch, uint8 ``[B, S, S, 3]``."""
    return torch.from_numpy(np.stack([frame.pixels for frame in frames]))


def training_pictures(source: object) -> tuple[list[Picture], str]:
    """The pictures to fit on, and a message where something had to be understood.

    Parameters
    ----------
    source
        a folder (searched recursively; of a data set's folder only its training pictures are
        taken), a picture file, a list of those, an array uint8 ``[N, H, W, 3]``, or any iterable
        of paths and arrays uint8 ``[H, W, 3]`` or ``[H, W]``.

    Raises
    ------
    DatasetError
        No such folder, or no pictures in it.
    """
    if isinstance(source, (str, Path)):
        if Path(source).is_dir() and (Path(source) / "train").is_dir():
            dataset = load_dataset(Path(source))
            return [sample.path for sample in dataset.train], dataset.message
        return list(list_images(Path(source))), ""
    if isinstance(source, np.ndarray):
        return (list(source) if source.ndim == 4 else [source]), ""
    if not isinstance(source, Iterable):
        raise TypeError(f"expected a folder, paths or arrays, not {type(source).__name__}")
    pictures: list[Picture] = []
    messages = []
    for item in source:
        found, message = training_pictures(item)
        pictures.extend(found)
        messages.append(message)
    return pictures, "; ".join(filter(None, messages))


def picture_names(pictures: Sequence[Picture]) -> list[str]:
    """What training pictures are called: files by their path below the folder they share.

    A bundle thus says nothing of the machine it was made on, and is the same wherever the pictures
    lie. Arrays are called by their position.
    """
    files = [Path(p).absolute() for p in pictures if isinstance(p, (str, Path))]
    try:
        root = Path(os.path.commonpath([file.parent for file in files])) if files else Path()
        relative = iter([file.relative_to(root).as_posix() for file in files])
    except ValueError:  # several drives, on Windows
        relative = iter([file.as_posix() for file in files])
    return [
        next(relative) if isinstance(picture, (str, Path)) else f"array {number}"
        for number, picture in enumerate(pictures)
    ]


def fit(
    pictures: Sequence[Picture],
    config: Config,
    encoder: Encoder,
    *,
    max_pixels: int = images.MAX_PIXELS,
    progress: Progress = lambda stage, done, total: None,
    remark: Callable[[str], None] = lambda text: None,
) -> Fitted:
    """Memorise normal pictures and choose thresholds from them.

    Pictures that cannot be read are left out and listed in ``skipped``.

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
    """
    graph = Graph(encoder, config)
    frames: list[Frame] = []
    skipped: list[Failure] = []  # with full paths, for the error
    left_out: list[Failure] = []  # with short names, for the bundle
    names = picture_names(pictures)

    def usable() -> Iterator[Frame]:
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

        for number, frame in enumerate(ordered_map(read, enumerate(pictures))):
            progress("encode", number + 1, len(pictures))
            if isinstance(frame, Failure):
                skipped.append(frame)
                error = frame.error.replace(frame.source, names[number])
                left_out.append(Failure(names[number], error))
            else:
                yield replace(frame, name=names[number])

    started = time.perf_counter()
    with Spool(len(pictures), config.grid) as spool, torch.inference_mode():
        for batch in batched(usable(), BATCH):
            spool.append(graph.features(stack(batch)))
            frames += [replace(f, pixels=np.empty((0, 0, 3), np.uint8)) for f in batch]
            if len(frames) == len(batch):  # the first batch: it warms up
                _budgets(config, spool, len(pictures))
                started = time.perf_counter()
            elif len(frames) == _TRIAL:
                seconds = (time.perf_counter() - started) / (_TRIAL - BATCH)
                planned = _budgets(config, spool, len(pictures))
                cost = expected_cost(len(pictures), seconds, spool.shapes, planned)
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
            banks.append(bank)
        progress("memorise", len(planned), len(planned))
        graph.banks = tuple(banks)
        scores, maxima = leave_one_out(graph, spool, progress=progress)
    owners = {p for bank in banks for p in bank.pictures.tolist()}
    return Fitted(
        config=config,
        encoder=encoder,
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
    )


def leave_one_out(
    graph: Graph,
    features: Spool,
    *,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score each training picture against the memory without its own keys.

    Parameters
    ----------
    features
        of the ``N`` training pictures.

    Returns
    -------
    image scores and largest map values, float64 ``[N]``; empty for ``N = 1``.
    """
    count = features.count
    if count == 1:
        return np.empty(0), np.empty(0)
    widest = max(
        len(cells) * len(keys)
        for bank in graph.banks
        for cells, keys in bank.search_sets(graph.config.radius)
    )
    step = max(1, min(_DISTANCES // widest, features.at_once))
    scores, maxima = [], []
    for start in range(0, count, step):
        rows = range(start, min(start + step, count))
        layers = [features.pictures(n, rows.start, rows.stop) for n in range(len(graph.banks))]
        scored = graph.score(layers, without_pictures=rows)
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


def _thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    height, width = pixels.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    small = images.resize_image(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    return images.encode_jpeg(small, quality=80)
