"""Measure one data set after the other, and keep the figures so that none is measured twice."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from fapm._version import __version__
from fapm.config import Config
from fapm.datasets.loading import Dataset
from fapm.detector import Detector
from fapm.engines.base import Runtime
from fapm.errors import FapmError
from fapm.measure.evaluate import evaluate
from fapm.measure.timing import take_turns
from fapm.progress import Progress
from fapm.reproduce.data_sets import load_labelled, speed_stages
from fapm.system.files import make_directory, replaced_when_complete
from fapm.system.paths import is_file
from fapm.system.processes import Call, ProcessDiedError

# Turns of each meaning of FPS, of four frames.
_ROUNDS = 10


@dataclass(frozen=True)
class Job:
    """A data set to measure.

    Attributes
    ----------
    timed
        whether speed is measured. It is not measured beside other jobs, which would slow it down.
    """

    name: str
    folder: Path
    config: Config
    runtime: Runtime
    timed: bool


@dataclass(frozen=True)
class Outcome:
    """Result of a job: its figures as plain JSON, or a line with the reason for having none."""

    name: str
    figures: dict[str, Any] | None
    error: str | None = None
    kept: bool = False  # from an earlier run

    def __str__(self) -> str:
        if self.figures is None:
            return f"{self.name}: failed: {self.error}"
        shown = [self.figures[name] for name in ("image_auroc", "pixel_auroc")]
        values = " / ".join("-" if value is None else f"{100 * value:.2f}" for value in shown)
        return f"{self.name}: {values}" + (", from an earlier run" if self.kept else "")


def measure_all(
    jobs: Sequence[Job],
    folder: Path,
    *,
    processes: int = 1,
    progress: Progress = lambda stage, done, total: None,
    remark: Callable[[str], None] = lambda text: None,
) -> Iterator[Outcome]:
    """Measure data sets, each kept in a file of ``folder`` as soon as it is done.

    The result of an earlier run is used again if it was measured with the same version, settings
    and runtime on the same files. A data set that cannot be measured has an outcome too.

    Parameters
    ----------
    processes
        number of data sets at a time. If it is above 1, each runs in a process of its own, on its
        share of the cores.
    progress, remark
        as for :meth:`fapm.Detector.fit`; called with a single process only.

    Raises
    ------
    OutputError
        ``folder`` cannot be written.
    """
    make_directory(folder)
    waiting: list[tuple[Job, str]] = []
    for job in jobs:
        try:
            key = fingerprint(job, load_labelled(job.folder))
        except FapmError as error:
            yield Outcome(job.name, None, str(error))
            continue
        kept = _read(folder, job, key)
        if kept is None:
            waiting.append((job, key))
        else:
            yield Outcome(job.name, kept, kept=True)
    keys = {job.name: key for job, key in waiting}
    left = [job for job, _ in waiting]
    if processes > 1:
        outcomes = _in_processes(left, processes)
    else:
        outcomes = (_outcome(job, progress, remark) for job in left)
    for outcome in outcomes:
        if outcome.figures is not None:
            record = {"key": keys[outcome.name], **outcome.figures}
            with replaced_when_complete(_path(folder, outcome.name)) as file:
                file.write((json.dumps(record, indent=2) + "\n").encode())
        yield outcome


def measure(job: Job, progress: Progress, remark: Callable[[str], None]) -> dict[str, Any]:
    """Fit on a data set's good pictures and judge its test pictures.

    Returns
    -------
    plain JSON. ``fps_device`` and ``fps_wall`` are defined by
    :func:`fapm.reproduce.data_sets.speed_stages`, and are None unless ``job.timed``.

    Raises
    ------
    FapmError
        The data set cannot be measured.
    """
    data = load_labelled(job.folder)
    detector = Detector(job.config, runtime=job.runtime)
    start = time.perf_counter()
    detector.fit([sample.path for sample in data.train], progress=progress, remark=remark)
    fit_seconds = time.perf_counter() - start
    found = evaluate(
        detector, data.test, progress=lambda done, total: progress("inspect", done, total)
    )
    fps: dict[str, float | None] = {"fps_device": None, "fps_wall": None}
    if job.timed:
        stages = speed_stages(detector, [sample.path for sample in data.test])
        take_turns(list(stages.values()), _ROUNDS, progress)
        fps = {f"fps_{name}": 1000 / stage.median for name, stage in stages.items()}
    return {
        "name": job.name,
        **found.summary(),
        **fps,
        "fit_seconds": fit_seconds,
        "keys": sum(len(bank.keys) for bank in detector.fitted_.banks),
        "n_train": len(detector.fitted_.pictures),
        "n_test": len(data.test),
        "warnings": [*data.warnings, *found.warnings],
        "failed": [f.error for f in (*detector.fitted_.skipped, *found.failures)],
    }


def fingerprint(job: Job, data: Dataset) -> str:
    """Digest of everything that figures depend on: version, settings, runtime and all files."""
    settings = job.config.model_dump(mode="json")
    if job.config.weights is not None and is_file(job.config.weights):
        settings["weights"] = _digest(Path(job.config.weights))
    samples = [*data.train, *data.test]
    files = [*(s.path for s in samples), *(mask for s in samples for mask in s.masks)]
    named = [(file.relative_to(job.folder).as_posix(), _digest(file)) for file in files]
    text = json.dumps([__version__, settings, asdict(job.runtime), named])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _digest(file: Path) -> str:
    """Digest of a file's content. Measuring will report a file that cannot be read."""
    digest = hashlib.sha256()
    with suppress(OSError), file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _read(folder: Path, job: Job, key: str) -> dict[str, Any] | None:
    """Result of an earlier run, if it belongs to this job and has the speed that is wanted."""
    try:
        record = json.loads(_path(folder, job.name).read_text("utf-8"))
        same = record.pop("key") == key
        timed = record["fps_device"] is not None
    except (OSError, ValueError, TypeError, AttributeError, KeyError):  # none, or not ours
        return None
    return record if same and (timed or not job.timed) else None


def _outcome(job: Job, progress: Progress, remark: Callable[[str], None]) -> Outcome:
    try:
        return Outcome(job.name, measure(job, progress, remark))
    except FapmError as error:
        return Outcome(job.name, None, str(error))
    except MemoryError:
        return Outcome(job.name, None, f"{job.folder}: there is not enough memory for this one")


def _in_processes(jobs: Sequence[Job], count: int) -> Iterator[Outcome]:
    """Yield outcomes as they are ready. A process that dies affects the outcome of its job only."""
    threads = max(1, (os.cpu_count() or 1) // count)
    left = list(reversed(jobs))
    running: dict[Connection, tuple[Call[Outcome], Job]] = {}
    try:
        while left or running:
            while left and len(running) < count:
                job = left.pop()
                call = Call(_outcome_on, threads, job)
                running[call.connection] = call, job
            ready = wait(list(running))
            for connection in [c for c in running if c in ready]:
                call, job = running.pop(connection)
                try:
                    outcome = call.result()
                except ProcessDiedError as error:
                    advice = "if memory ran out, use fewer --jobs"
                    outcome = Outcome(job.name, None, f"{job.folder}: {error}; {advice}")
                finally:
                    call.end()
                yield outcome
    finally:
        for call, _ in running.values():
            call.end()


def _outcome_on(threads: int, job: Job) -> Outcome:
    """The outcome of a job on so many threads, in silence."""
    import torch

    torch.set_num_threads(threads)
    runtime = replace(job.runtime, threads=job.runtime.threads or threads)
    return _outcome(replace(job, runtime=runtime), lambda *_: None, lambda _: None)
