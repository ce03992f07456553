"""Refuse torch in a child that was forked after torch's threads had begun to compute.

torch's OpenMP threads are not there in the child, and it waits for them for ever. With one thread
there are none to wait for.
"""

from __future__ import annotations

import os

import torch

from fapm.errors import EngineError


class _Threads:
    """Whether torch has computed on several threads in this process, or in one before it."""

    started = False
    lost = False


def require_threads() -> None:
    """Call this before torch computes.

    Raises
    ------
    EngineError
        This process was forked from one in which torch had computed on several threads.
    """
    if _Threads.lost:
        raise EngineError(
            "torch: this process was forked after torch had computed on several threads, and would "
            "wait for them for ever; start processes with multiprocessing.get_context('spawn')"
        )
    _Threads.started = _Threads.started or torch.get_num_threads() > 1


def _forked() -> None:
    _Threads.lost = _Threads.lost or _Threads.started


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
