"""Work in threads where they can be had, and in place where they cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Workers:
    """Threads that work ahead.

    Where no thread can be had, whoever asks for a result does the work: when the interpreter is
    ending or the system gives no more threads, and in a forked child, which has none of its
    parent's.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._process = os.getpid()

    def submit(self, work: Callable[[], Result]) -> Task[Result]:
        """Hand out work."""
        future = None
        if self.here():
            try:
                future = self._pool.submit(work)
            except RuntimeError:  # the interpreter is ending, or the system gives no thread
                future = None
        return Task(self, work, future)

    def here(self) -> bool:
        """Whether this process has the threads."""
        return self._process == os.getpid()

    def close(self) -> None:
        """Wait for what was begun."""
        if self.here():
            self._pool.shutdown()


class Task(Generic[Result]):
    """Work that was handed out."""

    def __init__(
        self, workers: Workers, work: Callable[[], Result], future: Future[Result] | None
    ) -> None:
        self._workers = workers
        self._work = work
        self._given = future

    def ready(self) -> bool:
        """Whether :meth:`result` would neither wait nor work."""
        future = self._future()
        return future is not None and future.done()

    def result(self) -> Result:
        """The result of the work; raises what it raises."""
        future = self._future()
        return self._work() if future is None else future.result()

    def cancel(self) -> None:
        """Spare the work if it has not begun."""
        future = self._future()
        if future is not None:
            future.cancel()

    def _future(self) -> Future[Result] | None:
        return self._given if self._workers.here() else None
