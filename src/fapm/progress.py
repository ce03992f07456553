"""Callbacks by which work tells of its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

# Called with a stage's name, how much of it is done, and how much there is.
Progress: TypeAlias = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Nobody listens."""


def unheard(text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Listener:
    """Whoever listens to long work.

    Attributes
    ----------
    progress
        called with a stage's name, how much of it is done, and how much there is.
    remark
        called with one line for people.
    """

    progress: Progress = silent
    remark: Callable[[str], None] = unheard


NOBODY = Listener()
