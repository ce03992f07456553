"""Pictures as they come, through the engine: read, scored and judged, in order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fapm.align import Aligner
from fapm.drift import DriftMonitor
from fapm.engines import Engine
from fapm.fitted import Fitted
from fapm.frames import Frame, Picture, read_frame
from fapm.judging import judge
from fapm.pipeline import Stages, ready_batches
from fapm.prediction import Failure, Prediction

_BATCH = 4


def judge_pictures(
    pictures: Iterable[Picture],
    fitted: Fitted,
    engine: Engine,
    *,
    aligner: Aligner | None,
    max_pixels: int,
    stages: Stages,
    drift: DriftMonitor | None,
) -> Iterator[Prediction | Failure]:
    """What :meth:`fapm.Detector.stream` yields.

    Parameters
    ----------
    aligner
        made of the fitted template; None where frames are taken as they come.
    """

    def read(numbered: tuple[int, Picture]) -> Frame | Failure:
        number, picture = numbered
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
            scored = engine.run([frame.pixels for frame in frames])
            stages.inference += time.perf_counter() - given
            predictions = judge(fitted, frames, scored, drift)
        for item in batch:
            yield item if isinstance(item, Failure) else next(predictions)
