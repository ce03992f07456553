"""A session: pictures are judged, each result is handed on, and all of them are summed up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fapm.bundle.calibration import VERDICTS, Verdict
from fapm.bundle.fitted import Fitted
from fapm.frames.preparation import Failure
from fapm.inspection.drift import DriftMonitor
from fapm.inspection.prediction import Prediction
from fapm.inspection.stream import Stages
from fapm.pictures.sources import Picture
from fapm.progress import Progress, silent, unheard

# Takes results one by one.
Sink: TypeAlias = Callable[[Prediction | Failure], None]


class Judge(Protocol):
    """What a session needs of a :class:`fapm.Detector`."""

    @property
    def fitted_(self) -> Fitted:
        """Memory banks, thresholds and names."""

    def stream(
        self,
        pictures: Iterable[Picture],
        *,
        stages: Stages | None = None,
        drift: DriftMonitor | None = None,
    ) -> Iterator[Prediction | Failure]:
        """Judge pictures one after the other, in order."""


@dataclass(frozen=True)
class Summary:
    """What a session found.

    Attributes
    ----------
    verdicts
        number of pictures by verdict.
    failures
        pictures that could not be inspected.
    seconds
        what the session took.
    bottleneck
        ``decoding``, ``inference`` or ``writing``: what took most of that time.
    stretched
        one sentence on pictures that were resized to another shape; empty if none was.
    """

    verdicts: Mapping[Verdict, int]
    failures: tuple[Failure, ...]
    seconds: float
    bottleneck: str
    stretched: str

    @property
    def pictures(self) -> int:
        """How many pictures there were, failed ones too."""
        return sum(self.verdicts.values()) + len(self.failures)

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return self.pictures / self.seconds

    @property
    def failed(self) -> str:
        """One sentence on how many pictures failed, with the first reason; empty if none did."""
        return failed(self.pictures, self.failures)

    def __str__(self) -> str:
        counts = ", ".join(f"{self.verdicts[verdict]} {verdict}" for verdict in VERDICTS)
        return (
            f"{counts}, {len(self.failures)} failed; "
            f"{self.rate:.3g} pictures a second, bound by {self.bottleneck}"
        )


class Session:
    """One inspection of a series of pictures.

    Parameters
    ----------
    detector
        judges them.
    sinks
        each is called with each result, in order, as soon as it is there. Whoever opened them
        closes them.
    monitor
        watches for drift, if anybody wants it.
    warning
        called with one line when a drift begins.
    """

    def __init__(
        self,
        detector: Judge,
        sinks: Sequence[Sink] = (),
        monitor: DriftMonitor | None = None,
        warning: Callable[[str], None] = unheard,
    ) -> None:
        self.detector = detector
        self.sinks = tuple(sinks)
        self.monitor = monitor
        self.warning = warning

    def run(self, pictures: Iterable[Picture], progress: Progress = silent) -> Summary:
        """Judge all pictures and say what was found.

        Parameters
        ----------
        pictures
            as :meth:`fapm.Detector.stream` takes several; one that cannot be used is a failure.
        progress
            called after each picture with ``inspect``, their number so far and their number in all;
            where that is unknown it is called with the number so far.

        Raises
        ------
        FapmError
            As the sinks raise it: what they cannot write ends the session.
        """
        total = len(pictures) if isinstance(pictures, Sized) else 0
        verdicts: Counter[Verdict] = Counter()
        sizes: Counter[tuple[int, int]] = Counter()
        failures: list[Failure] = []
        warned, stages, started = None, Stages(), time.perf_counter()
        results = self.detector.stream(pictures, stages=stages, drift=self.monitor)
        for done, result in enumerate(results, start=1):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                verdicts[result.verdict] += 1
                sizes[result.height, result.width] += 1
            for sink in self.sinks:
                sink(result)
            warned = self._warned(warned)
            progress("inspect", done, total or done)
        seconds = time.perf_counter() - started
        return Summary(
            verdicts={verdict: verdicts[verdict] for verdict in VERDICTS},
            failures=tuple(failures),
            seconds=seconds,
            bottleneck=stages.slowest(seconds),
            stretched=self.detector.fitted_.layout.stretched([*sizes.elements()]),
        )

    def _warned(self, before: int | None) -> int | None:
        """Since which picture there is a drift; a new one is told of."""
        if self.monitor is None:
            return None
        state = self.monitor.state
        if state.since not in (before, None):
            self.warning(f"drift: {state}")
        return state.since


def failed(count: int, failures: Sequence[Failure]) -> str:
    """One sentence on the failures among ``count`` pictures; empty if there are none."""
    if not failures:
        return ""
    of = f"{count} picture{'' if count == 1 else 's'}"
    some = f"{len(failures)} of {of} could not be inspected"
    said = f"none of {of} could be inspected" if len(failures) == count else some
    return f"{said}; the first: {failures[0].error}"
