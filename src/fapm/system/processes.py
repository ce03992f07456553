"""A call in a process of its own: it can be ended, and it can die without harm to this one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class ProcessDiedError(Exception):
    """A process ended before its call returned."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"its process ended with exit code {code}")


class Call(Generic[Result]):
    """``function(*arguments)`` in a spawned process, started at once.

    Function, arguments and result must be picklable. Whoever starts a call ends it.

    Attributes
    ----------
    connection
        is ready when the result is there or the process has died, for
        :func:`multiprocessing.connection.wait`.
    """

    def __init__(self, function: Callable[..., Result], *arguments: Any) -> None:
        context = get_context("spawn")  # forked children would share torch's threads
        self.connection, sending = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_work, args=(sending, function, arguments), daemon=True
        )
        self._process.start()
        sending.close()

    def result(self) -> Result:
        """The value that the function returns, as soon as it does.

        Raises
        ------
        ProcessDiedError
            It does not.
        """
        try:
            result: Result = self.connection.recv()
        except EOFError:
            self._process.join()
            raise ProcessDiedError(self._process.exitcode) from None
        return result

    def end(self) -> None:
        """End the process if it has not ended."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _work(sending: Connection, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    sending.send(function(*arguments))
