"""Values that are made when first needed, by one thread, and again in a forked child.

A forked child has the thread that forked and no other: pools without their threads, and locks that
nobody will ever release. So locks here are free in a child, and what lived on threads is made anew.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar, cast
from weakref import WeakSet

Made = TypeVar("Made")


class Renewed(Protocol):
    """Objects that have to be told that this is a forked child now."""

    def renew(self) -> None: ...


_alive: WeakSet[Renewed] = WeakSet()


def renew_in_children(thing: Renewed) -> None:
    """Have ``thing.renew()`` called in each child that is forked while it lives."""
    _alive.add(thing)


def _renew_all() -> None:
    for thing in list(_alive):
        thing.renew()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_all)


def never_free(thing: object) -> None:
    """Keep what would wait, at its end, for threads that are not in this process; even at exit."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class Lock:
    """A reentrant lock that is free in a forked child, and that can be pickled."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        renew_in_children(self)

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            yield

    def renew(self) -> None:
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Lock, ()


class Once(Generic[Made]):
    """The result of ``make``, which the first thread that asks calls; others wait for it.

    After an error the next one to ask tries again.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._lock = Lock()
        self._made: tuple[Made] | None = None

    def __call__(self) -> Made:
        made = self._made
        if made is None:
            with self._lock.held():
                made = self._made
                if made is None:
                    made = self._made = (self._make(),)
        return made[0]


class PerProcess(Once[Made]):
    """As :class:`Once`, and made anew in a forked child: for what has threads of its own.

    Attributes
    ----------
    inherited
        whether a process before this one had made it.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        super().__init__(make)
        self.inherited = False
        renew_in_children(cast(Renewed, self))

    def renew(self) -> None:
        if self._made is not None:
            never_free(self._made)
            self.inherited = True
        self._made = None
