"""Pictures as they come, through the engine: read, scored and judged, in order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fapm.drift import DriftMonitor
from fapm.exits import native_code
from fapm.frames import Frame, Picture, read_frame
from fapm.judging import judge
from fapm.pipeline import Stages, ready_batches
from fapm.prediction import Failure, Prediction
from fapm.snapshot import Snapshot

_BATCH = 4


def judge_pictures(
    pictures: Iterable[Picture],
    now: Snapshot,
    *,
    max_pixels: int,
    stages: Stages,
    drift: DriftMonitor | None,
) -> Iterator[Prediction | Failure]:
    """What :meth:`fapm.Detector.stream` yields.

    Parameters
    ----------
    now
        judges all of them, whatever the detector learns meanwhile.
    """
    fitted, aligner, engine = now.fitted, now.aligner, now.engine

    def read(numbered: tuple[int, Picture]) -> Frame | Failure:
        number, picture = numbered
        with native_code.inside():
            return read_frame(
                picture,
                fitted.config,
                fitted.encoder.spec.interpolation,
                max_pixels=max_pixels,
                layout=fitted.layout,
                name=f"array {number}",
                roi=fitted.roi,
                light=fitted.light,
                aligner=aligner,
                with_look=drift is not None,
            )

    numbered: Iterable[tuple[int, Picture]] = enumerate(pictures)
    if isinstance(pictures, (Sequence, np.ndarray)):
        numbered = list(numbered)
    batches = ready_batches(read, numbered, size=_BATCH)
    while True:
        asked = time.perf_counter()
        if (batch := next(batches, None)) is None:
            break
        stages.decode += time.perf_counter() - asked
        frames = [item for item in batch if isinstance(item, Frame)]
        predictions: Iterator[Prediction] = iter(())
        if frames:
            given = time.perf_counter()
            with native_code.inside():
                scored = engine.run([frame.pixels for frame in frames])
            stages.inference += time.perf_counter() - given
            predictions = judge(fitted, frames, scored, drift)
        for item in batch:
            if isinstance(item, Failure):
                yield item
                continue
            with native_code.inside():
                prediction = next(predictions)
            yield prediction
