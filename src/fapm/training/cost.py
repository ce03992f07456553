"""Estimate of the time, memory and disk space of a fit, announced before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fapm.memory.coreset import PLAIN_VECTORS
from fapm.memory.memorise import Budget
from fapm.training import spool

# Measured with benchmarks/growth.py on one core (AMD EPYC, AVX-512); a fit may well take twice as
# much.
_BASE_BYTES = 600_000_000  # Python, torch, encoder and a batch
_CALIBRATION_BYTES = 500_000_000  # distances and maps of leave-one-out
_PICTURE_BYTES = 10_000  # thumbnail and name
_CHOICE_SECONDS = 1 / 4e9  # a coordinate of a vector, for a key
_BLOCK_SECONDS = 1 / 6e9  # the same where keys are chosen block by block
_DISTANCE_SECONDS = 4e-9  # a distance of leave-one-out


@dataclass(frozen=True)
class Cost:
    """Cost of a fit: ``seconds`` in all, peak ``memory`` and temporary ``file`` in bytes."""

    seconds: float
    memory: int
    file: int

    def __str__(self) -> str:
        text = f"expect about {_duration(self.seconds)} and {_gigabytes(self.memory)} of memory"
        return text + (f", {_gigabytes(self.file)} in {spool.folder()}" if self.file else "")


def expected_cost(
    pictures: int,
    seconds_a_picture: float,
    shapes: Sequence[tuple[int, int, int]],
    budgets: Sequence[Budget],
) -> Cost:
    """Estimate the cost of a fit.

    Parameters
    ----------
    seconds_a_picture
        time from file to features, as measured on the first pictures.
    shapes, budgets
        per layer ``C, H, W``, and the number of keys that it may have.
    """
    seconds = pictures * seconds_a_picture
    widest = 0  # bytes of a patch's vectors
    for (channels, height, width), budget in zip(shapes, budgets, strict=True):
        keys, patches = sum(budget.shares), len(budget.shares)
        vectors = pictures * height * width // patches  # of a patch
        choice = _BLOCK_SECONDS if vectors > PLAIN_VECTORS else _CHOICE_SECONDS
        seconds += keys * vectors * channels * choice
        seconds += keys * vectors * _DISTANCE_SECONDS
        widest = max(widest, 4 * vectors * channels)
    file = spool.file_bytes(pictures, shapes)
    values = sum(channels * height * width for channels, height, width in shapes)
    held = 0 if file else 4 * pictures * values
    # The vectors as read, their centred copy, and for a moment a third copy.
    working = max(3 * widest, _CALIBRATION_BYTES)
    return Cost(seconds, _BASE_BYTES + held + working + pictures * _PICTURE_BYTES, file)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
