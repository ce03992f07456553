"""No thread inside native code while the interpreter ends.

Python lets a daemon thread run until it asks for the interpreter's lock, and then ends it where it
stands. Inside C++ that aborts the process. So the end of the program waits until such threads have
come out of a piece of work, and lets none in again.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fapm.system.forks import renew_in_children

_PATIENCE = 10.0  # seconds that an end waits for work that was begun


class Door:
    """Daemon threads pass it to work; closed, it lets none in and waits for those inside."""

    def __init__(self) -> None:
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def inside(self) -> Iterator[None]:
        """For work that ends soon. A thread that comes after the end began never returns."""
        if not threading.current_thread().daemon:  # Python itself waits for these
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._inside, timeout=_PATIENCE)


native_code = Door()
atexit.register(native_code.close)
