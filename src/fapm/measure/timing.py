"""Time and memory of a command's stages."""

from __future__ import annotations

import io
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fapm.progress import Progress

# What the machine is warmed up with, and how many frames a turn has.
WARM_UP = 5
BLOCK = 4


@dataclass
class Stage:
    """One thing that is timed: milliseconds of each run."""

    run: Callable[[], object]
    times: list[float] = field(default_factory=list)

    def turn(self) -> None:
        """Runs it a few times, the first untimed: it has the caches of the stage before."""
        self.run()
        for _ in range(BLOCK):
            start = time.perf_counter()
            self.run()
            self.times.append(1000 * (time.perf_counter() - start))

    @property
    def median(self) -> float:
        return statistics.median(self.times)


def take_turns(
    stages: Sequence[Stage],
    rounds: int,
    progress: Progress = lambda stage, done, total: None,
) -> None:
    """Time stages in turns, so that whatever else the machine does meets all of them alike."""
    for stage in stages:
        for _ in range(WARM_UP):
            stage.run()
    for number in range(rounds):
        progress("measure", number, rounds)
        for stage in stages:
            stage.turn()
    progress("measure", rounds, rounds)


def peak_mb() -> float | None:
    """Peak memory of this process; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)


def machine() -> dict[str, Any]:
    """What figures of speed belong to: processor, system, date and versions."""
    name = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.is_file():
        lines = io.StringIO(cpus.read_text(encoding="utf-8"))
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    return {
        "machine": f"{name}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "date": date.today().isoformat(),
        "versions": {name: version(name) for name in ("openvino", "numpy")},
    }
