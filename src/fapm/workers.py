"""Work in threads where they can be had, and in place where they cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Task(Generic[Result]):
    """Work handed to a pool.

    Whoever asks for the result does the work where no thread can: when the interpreter is ending or
    the system gives no more threads, and in a forked child, which has none of the pool's.
    """

    def __init__(self, pool: ThreadPoolExecutor, work: Callable[[], Result]) -> None:
        self._work = work
        self._process = os.getpid()
        self._future: Future[Result] | None
        try:
            self._future = pool.submit(work)
        except RuntimeError:  # what both "shutdown" and "can't start new thread" are
            self._future = None

    def ready(self) -> bool:
        """Whether :meth:`result` would neither wait nor work."""
        future = self._in_pool()
        return future is not None and future.done()

    def result(self) -> Result:
        """What the work gives; raises what it raises."""
        future = self._in_pool()
        return self._work() if future is None else future.result()

    def cancel(self) -> None:
        """Spare the work if it has not begun."""
        future = self._in_pool()
        if future is not None:
            future.cancel()

    def _in_pool(self) -> Future[Result] | None:
        return self._future if self._process == os.getpid() else None
