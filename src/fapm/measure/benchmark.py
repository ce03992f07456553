"""How fast a detector is here: stages of an inspection, side by side, in one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fapm.bundle.fitted import Fitted
from fapm.config import Config
from fapm.detector import Detector
from fapm.encoder.spec import FrozenEncoder
from fapm.engines.base import Runtime
from fapm.engines.opening import engine_name, open_encoder, open_engine
from fapm.errors import ConfigError
from fapm.frames.preparation import readable_frames, require_command
from fapm.frames.stage import Stage as FrameStage
from fapm.measure.timing import BLOCK, Stage, machine, peak_mb, take_turns
from fapm.memory import geometry
from fapm.memory.bank import MemoryBank
from fapm.pictures import codec
from fapm.pictures.sources import Picture
from fapm.progress import Progress

_PICTURE_EDGE = 512
# What is inspected in one go: each frame or file so many times.
_AT_ONCE = 8


def benchmark(
    pictures: Sequence[Picture],
    config: Config,
    runtime: Runtime,
    *,
    rounds: int = 20,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Fit on pictures and time what inspecting them takes.

    Files are read as they are; arrays are written as JPEG first. PatchCore is our own ablation, one
    memory for the whole picture and all layers, in fp32 on the same engine. Its keys are drawn at
    random, not chosen greedily, which takes long and does not change the time of a search.

    Returns
    -------
    plain JSON. ``*_ms`` are medians of a frame; ``search_ms`` is what the whole graph
    (``pipeline_ms``) takes beyond the encoder, ``map_ms`` what brings its map to the picture's own
    size. ``fps_device`` counts the graph alone, frame by frame or, with the hint ``throughput``,
    several at once; ``fps_wall`` everything from file to verdict and map: the two ways in which the
    paper counts.

    Raises
    ------
    ConfigError
        ``rounds`` is not positive.
    FapmError
        As :meth:`fapm.Detector.fit`.
    """
    require_command(config, "benchmark")
    if rounds < 1:
        raise ConfigError(f"rounds: {rounds} is not at least 1")
    detector = Detector(config, runtime=runtime)
    start = time.perf_counter()
    detector.fit(pictures, progress=progress)
    fit_seconds = time.perf_counter() - start
    fitted = detector.fitted_
    chosen, frames = readable_frames(
        pictures, fitted.preparation, count=BLOCK, max_pixels=codec.MAX_PIXELS
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [_as_file(picture, Path(folder, f"{i}.jpg")) for i, picture in enumerate(chosen)]
        timed = stages(detector, frames, files)
        take_turns(list(timed.values()), rounds, progress)
        fps_device = _fps_device(detector, frames, timed["pipeline"])
        fps_wall = _fps_wall(detector, files)
    return {
        **_times(timed),
        "fps_device": fps_device,
        "fps_wall": fps_wall,
        "fit_seconds": fit_seconds,
        "encoder": config.encoder,
        "weights": config.weights,
        "input_size": config.input_size,
        "n_train": len(fitted.pictures),
        "keys": sum(len(bank.keys) for bank in fitted.banks),
        "precision": fitted.encoder.precision,
        "engine": engine_name(runtime),
        "hint": runtime.hint,
        "threads": detector.engine_.threads,
        "rounds": rounds,
        "peak_mb": peak_mb(),
        **machine(),
    }


def stages(
    detector: Detector, frames: Sequence[NDArray[np.uint8]], files: Sequence[Path]
) -> dict[str, Stage]:
    """What :func:`benchmark` times, by name.

    Parameters
    ----------
    frames
        RGB uint8 ``[S, S, 3]`` each, taken in turn.
    files
        pictures, taken in turn.
    """
    fitted, config, runtime = detector.fitted_, detector.config, detector.runtime
    preparation, edge = fitted.preparation, max(fitted.layout.canvas)
    exact = _in_fp32(fitted, config)
    encoder = open_encoder(fitted.encoder, runtime)
    patchcore = open_engine(_patchcore(fitted, exact, frames, runtime), runtime)
    decoded = [codec.read_reduced(file, edge)[0] for file in files]
    frame, file, picture = cycle(frames), cycle(files), cycle(decoded)
    prediction = detector.predict(files[0])
    timed = {
        "encoder": Stage(lambda: encoder.features([next(frame)])),
        "pipeline": Stage(lambda: detector.engine_.run([next(frame)])),
        "patchcore": Stage(lambda: patchcore.run([next(frame)])),
        "decode": Stage(lambda: codec.read_reduced(next(file), edge)),
        "resize": Stage(lambda: preparation.layout.frame(next(picture), preparation.interpolation)),
        "map": Stage(lambda: prediction.anomaly_map),
        "wall": Stage(lambda: detector.predict(next(file)).anomaly_map),
    }
    if fitted.encoder.precision != "fp32":
        plain = open_engine(_with_encoder(fitted, exact), runtime)
        timed["pipeline_fp32"] = Stage(lambda: plain.run([next(frame)]))
    for stage in preparation.stages:
        timed[stage.name] = Stage(partial(_apply_next, stage, frame))
    return timed


def _apply_next(stage: FrameStage, frames: Iterator[NDArray[np.uint8]]) -> None:
    stage.apply(next(frames))


def synthetic_pictures(count: int, seed: int) -> list[Picture]:
    """Seeded pictures of one part under noise, uint8 ``[512, 512, 3]``, to measure speed on.

    Raises
    ------
    ConfigError
        ``count`` is not positive.
    """
    if count < 1:
        raise ConfigError(f"pictures: {count} is not at least 1")
    rng = np.random.default_rng(seed)
    edge = _PICTURE_EDGE
    part = np.kron(rng.integers(60, 200, (16, 16, 3)), np.ones((edge // 16, edge // 16, 1)))
    tile = rng.normal(scale=12, size=(edge, edge, 3))  # shifted from picture to picture: quick
    shifts = rng.integers(0, edge, (count, 2))
    return [
        (part + np.roll(tile, shift, axis=(0, 1))).clip(0, 255).astype(np.uint8)
        for shift in shifts.tolist()
    ]


def _as_file(picture: Picture, path: Path) -> Path:
    if isinstance(picture, (str, Path)):
        return Path(picture)
    picture = codec.read(picture).pixels
    path.write_bytes(codec.encode_jpeg(picture, quality=92))
    return path


def _in_fp32(fitted: Fitted, config: Config) -> FrozenEncoder:
    """The detector's encoder in fp32."""
    if fitted.encoder.precision == "fp32":
        return fitted.encoder
    from fapm.encoder.freeze import freeze
    from fapm.encoder.weights import create_encoder

    return freeze(create_encoder(config), "fp32")


def _with_encoder(fitted: Fitted, encoder: FrozenEncoder) -> Fitted:
    """The same memory behind another encoder: worthless but for the time it takes."""
    return replace(fitted, encoder=encoder)


def _patchcore(
    fitted: Fitted, exact: FrozenEncoder, frames: Sequence[NDArray[np.uint8]], runtime: Runtime
) -> Fitted:
    """PatchCore with as many keys as 10 % of the training pictures' vectors, drawn at random."""
    height, width = geometry.finest(shape[1:] for shape in exact.shapes)
    layers = open_encoder(exact, runtime).features(frames)
    aligned = [
        f.reshape(*f.shape[:2], -1)[:, :, geometry.upsample_index(f.shape[2:], (height, width))]
        for f in layers
    ]
    vectors = np.concatenate(aligned, axis=1).transpose(0, 2, 1)  # [n, H * W, C]
    vectors = vectors.reshape(-1, vectors.shape[2])
    count = -(-len(fitted.pictures) * height * width // 10)
    rng = np.random.default_rng(0)
    keys = vectors[rng.integers(0, len(vectors), count)]
    # No two alike: what is searched must not be simpler than a real memory.
    keys = keys + rng.normal(scale=0.1 * keys.std(), size=keys.shape).astype(np.float32)
    bank = MemoryBank(
        keys=keys,
        offsets=np.array([0, count]),
        pictures=np.zeros(count, np.int64),
        cells=np.zeros(count, np.int64),
        radii=np.ones(1, np.float32),
        unit=1.0,
        height=height,
        width=width,
        grid=1,
    )
    config = fitted.config.model_copy(
        update={"grid": 1, "layer_wise": False, "radius": 0, "sampling": "none"}
    )
    return replace(fitted, config=config, encoder=exact, banks=(bank,))


def _times(timed: Mapping[str, Stage]) -> dict[str, float]:
    """Medians of all stages, and what follows from them."""
    medians = {f"{name}_ms": stage.median for name, stage in timed.items()}
    p95, p99 = np.percentile(timed["pipeline"].times, (95, 99)).tolist()
    return {
        **medians,
        "search_ms": medians["pipeline_ms"] - medians["encoder_ms"],
        "pipeline_p95_ms": p95,
        "pipeline_p99_ms": p99,
        "pipeline_over_encoder": medians["pipeline_ms"] / medians["encoder_ms"],
        "patchcore_over_pipeline": medians["patchcore_ms"] / medians["pipeline_ms"],
    }


def _fps_device(detector: Detector, frames: Sequence[NDArray[np.uint8]], pipeline: Stage) -> float:
    """Frames per second through the graph alone; ``pipeline`` is a frame by itself."""
    if detector.runtime.hint == "latency":
        return 1000 / pipeline.median
    many = [*frames] * _AT_ONCE
    several = Stage(lambda: detector.engine_.run(many))
    several.turn()
    return 1000 * len(many) / several.median


def _fps_wall(detector: Detector, files: Sequence[Path]) -> float:
    """Files per second, from file to verdict and map."""
    start = time.perf_counter()
    inspected = [p.anomaly_map for p in detector.predict([*files] * _AT_ONCE)]
    return len(inspected) / (time.perf_counter() - start)
