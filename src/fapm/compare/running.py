"""Run methods one after the other, each in a process of its own, and measure them alike."""

from __future__ import annotations

import logging
import os
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fapm.compare.registry import BUILDERS, PUBLISHED, Build, missing_package
from fapm.compare.setting import Setting
from fapm.datasets.loading import Sample
from fapm.errors import FapmError, ImageError
from fapm.frames.layout import Layout
from fapm.frames.preparation import Frame
from fapm.measure import metrics
from fapm.measure.timing import peak_mb
from fapm.pictures.masks import read_masks
from fapm.system.processes import Call, ProcessDiedError

# The first pictures are slower, because some work is done on first use.
_WARM_UP = 2


class Row(NamedTuple):
    """Figures of one method; None where a figure is not known.

    ``status`` is ``measured``, ``published`` or ``failed``. AUROC and AUPRO are in ``0 .. 1``;
    pixels are compared in the encoder's frame. ``fit_seconds`` is the time from the files to a
    method that can judge. ``inspect_ms`` is the median time from file to score and map, one picture
    at a time. ``memory_mb`` is the size of the learned model without the encoder. ``peak_mb`` is
    the peak memory of the whole process.
    """

    method: str
    status: str
    image_auroc: float | None = None
    pixel_auroc: float | None = None
    aupro: float | None = None
    fit_seconds: float | None = None
    inspect_ms: float | None = None
    memory_mb: float | None = None
    peak_mb: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Task:
    """Input of every method: good pictures to learn from, and samples to judge."""

    setting: Setting
    good: tuple[Path, ...]
    test: tuple[Sample, ...]


def compare(names: Sequence[str], task: Task, *, timeout: float | None = None) -> Iterator[Row]:
    """Yield a row for each method, as soon as it is known.

    The row of a method that fails, takes too long or ends its process says so.

    Parameters
    ----------
    timeout
        seconds that each method has, including the start of its process.
    """
    for name in names:
        if (published := PUBLISHED.get(name)) is not None:
            note = f"published, not run: mean over MVTec AD, {published.paper}"
            yield Row(name, "published", published.image_auroc, published.pixel_auroc, note=note)
        elif (missing := missing_package(name)) is not None:
            yield Row(name, "failed", note=missing)
        else:
            yield _in_own_process(name, BUILDERS[name], task, timeout)


def _in_own_process(name: str, build: Build, task: Task, timeout: float | None) -> Row:
    """Measure one method in a process that can be ended and whose memory is its own."""
    call = Call(_row, name, build, task)
    try:
        if not call.connection.poll(timeout):
            return Row(name, "failed", note=f"not done after {timeout:g} s (--timeout)")
        return call.result()
    except ProcessDiedError as error:
        return Row(name, "failed", note=f"{error} (out of memory?)")
    finally:
        call.end()


def _row(name: str, build: Build, task: Task) -> Row:
    # Peers have much to say; stdout is for the table.
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    try:
        return measure(name, build, task)
    except FapmError as error:
        return Row(name, "failed", note=str(error))
    except Exception as error:  # peers raise what they like
        said = " ".join(str(error).split())[:200]
        return Row(name, "failed", note=f"{type(error).__name__}: {said}")


def measure(name: str, build: Build, task: Task) -> Row:
    """Fit a method on the good pictures and judge the test pictures with it.

    Raises
    ------
    ImageError
        No test picture could be read.
    """
    start = time.perf_counter()
    method = build(task.setting)
    method.fit(task.good)
    fit_seconds = time.perf_counter() - start

    labels: list[int] = []
    scores: list[float] = []
    masks: list[NDArray[np.bool_]] = []
    maps: list[NDArray[np.float32]] = []
    seconds: list[float] = []
    for sample in task.test:
        start = time.perf_counter()
        frame = method.preparation.read(sample.path, max_pixels=task.setting.max_pixels)
        if not isinstance(frame, Frame):
            continue
        judged = method.score([frame.pixels])
        seconds.append(time.perf_counter() - start)
        if sample.label is not None:
            labels.append(sample.label)
            scores.append(float(judged.scores[0]))
        if (mask := _mask(sample, frame, method.preparation.layout)) is not None:
            masks.append(mask)
            maps.append(method.preparation.restore(judged.maps[0], frame.traces))
    if not seconds:
        raise ImageError("none of the test pictures could be read")
    pixel = None
    if any(mask.any() for mask in masks) and not all(mask.all() for mask in masks):
        pixel = metrics.pixel_metrics(np.stack(masks), np.stack(maps))
    return Row(
        name,
        "measured",
        metrics.auroc(labels, scores) if len(set(labels)) == 2 else None,
        pixel.auroc if pixel else None,
        pixel.aupro if pixel else None,
        fit_seconds,
        1000 * statistics.median(seconds[_WARM_UP:] or seconds),
        method.memory_bytes / 1e6,
        peak_mb(),
        method.note,
    )


def _mask(sample: Sample, frame: Frame, layout: Layout) -> NDArray[np.bool_] | None:
    """Ground truth, bool, at the pixels of the anomaly map; None where it is not known."""
    if not sample.masks:
        return np.zeros(layout.map_shape, np.bool_) if sample.label == 0 else None
    try:
        mask = read_masks(sample.masks, frame.height, frame.width)
    except ImageError:
        return None
    return layout.mask(mask.inside)
