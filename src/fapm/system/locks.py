"""A file that is read, changed and written back has one writer at a time."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fapm.errors import OutputError
from fapm.system import paths

_ASKED_EVERY = 0.05  # seconds

if sys.platform == "win32":
    import msvcrt

    def _try(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def sole_writer(
    path: Path, *, read: bool = True, waiting: Callable[[str], None] = lambda line: None
) -> Iterator[Callable[[], None]]:
    """Nobody else who asks here writes ``path`` before the block ends; they wait.

    Parameters
    ----------
    read
        whether ``path`` is read in the block. Where it is only written, and somebody else has
        written it while this one waited, what they wrote is not replaced.
    waiting
        called with one line before this one waits.

    Yields
    ------
    To be called before ``path`` is written: refuses if somebody who did not ask has written it.

    Raises
    ------
    OutputError
        ``path`` is not what it was; the message says what to do.
    """
    before = paths.identity(path)
    with _locked(path, waiting):
        if read:
            before = paths.identity(path)

        def refuse_if_changed() -> None:
            if paths.identity(path) != before:
                raise OutputError(
                    f"{path}: another program has written it meanwhile, and nothing was changed; "
                    "type the command again"
                )

        yield refuse_if_changed


@contextmanager
def _locked(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold a hidden file beside what ``path`` leads to; it is gone when nobody holds it."""
    if paths.is_stream(path):
        yield
        return
    target = paths.followed(path)
    # The name of a bundle may be as long as the system allows: this one may be no longer.
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    beside = target.parent / f".fapm-{name}.lock"
    descriptor = _take(beside, path)
    if descriptor is None:
        waiting(f"{path}: waiting for another fapm that is changing it")
    while descriptor is None:
        time.sleep(_ASKED_EVERY)
        descriptor = _take(beside, path)
    try:
        yield
    finally:
        # On POSIX it goes before it is released: who has it open notices that it is not there.
        # Windows removes no file that is open, so there this does nothing before and all after.
        with suppress(OSError):
            beside.unlink()
        os.close(descriptor)
        if sys.platform == "win32":
            with suppress(OSError):
                beside.unlink()


def _take(beside: Path, path: Path) -> int | None:
    """An open descriptor of the file, which is locked; None: somebody else has it.

    Where the file system has no locks it is as if nobody had it; ``refuse_if_changed`` is left.
    """
    try:
        descriptor = _open(beside)
    except FileNotFoundError:  # gone since it was looked at
        return None
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {error.strerror or error}") from error
    try:
        _try(descriptor)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    except OSError:
        return descriptor
    if paths.same(descriptor, beside):
        return descriptor
    os.close(descriptor)  # who had it before has removed it
    return None


def _open(beside: Path) -> int:
    try:
        return os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if sys.platform == "win32":
            raise
        return os.open(beside, os.O_RDONLY)  # another user's, and that will do
