"""Pictures as they come, through the engine: read, scored and judged, in order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fapm.frames.preparation import Failure, Frame
from fapm.inspection.drift import DriftMonitor
from fapm.inspection.judging import judge
from fapm.inspection.prediction import Prediction
from fapm.inspection.snapshot import Snapshot
from fapm.pictures.sources import Picture
from fapm.system.exits import native_code
from fapm.system.parallel import ready_batches


@dataclass
class Stages:
    """Seconds that an inspection waited for decoded pictures, and that inference took."""

    decode: float = 0.0
    inference: float = 0.0

    def slowest(self, seconds: float) -> str:
        """The stage that took most of ``seconds`` in all; time outside the stages is writing."""
        writing = seconds - self.decode - self.inference
        shares = {"decoding": self.decode, "inference": self.inference, "writing": writing}
        return max(shares, key=lambda name: shares[name])


_BATCH = 4


def judge_pictures(
    pictures: Iterable[Picture],
    now: Snapshot,
    *,
    max_pixels: int,
    stages: Stages,
    drift: DriftMonitor | None,
) -> Iterator[Prediction | Failure]:
    """Judge pictures one after the other, for :meth:`fapm.Detector.stream`.

    Parameters
    ----------
    now
        judges all of them, whatever the detector learns meanwhile.
    """
    fitted, engine = now.fitted, now.engine

    def read(numbered: tuple[int, Picture]) -> Frame | Failure:
        number, picture = numbered
        with native_code.inside():
            return fitted.preparation.read(
                picture,
                max_pixels=max_pixels,
                name=f"array {number}",
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
