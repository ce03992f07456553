"""Standard output and standard error: either may be closed, full, or read by nobody any more."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from fapm.errors import OutputError
from fapm.system import paths

# Also what only some programs take for the end of a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ReaderGoneError(Exception):
    """Who read standard output, such as ``head -1``, does not any more."""


def plain(text: str) -> str:
    """``text`` as one line that does nothing to a terminal: control characters are escaped."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def print_line(text: str) -> None:
    """One line on standard output, whatever the names of files in it are.

    Raises
    ------
    OutputError, ReaderGoneError
        As :func:`print_text`.
    """
    print_text(plain(text) + "\n")


def print_text(text: str) -> None:
    """``text`` on standard output as it is. It has left this process when this returns.

    Raises
    ------
    OutputError
        It cannot be written: the disk is full, or standard output is closed.
    ReaderGoneError
        It is a pipe that nobody reads.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        abandon_stdout()
        raise ReaderGoneError from None
    except OSError as error:
        abandon_stdout()
        raise OutputError(f"standard output: cannot write: {error.strerror or error}") from error


def complain(line: str) -> None:
    """One line on standard error. Where nobody can read it, that is no second error."""
    StandardError().write(plain(line) + "\n")


def is_stdout(path: str | Path) -> bool:
    """Whether ``path`` is where standard output goes, such as ``/dev/stdout``; never raises."""
    return paths.same(1, path)


def on_one_terminal() -> bool:
    """Whether standard output and standard error are the same terminal."""
    return sys.stdout.isatty() and paths.same(1, 2)


def open_missing() -> None:
    """See that streams that were closed (``>&-``) exist.

    The next file that is opened would else take their place, and get what is printed. Standard
    output then refuses what is written; standard error forgets it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def abandon_stdout() -> None:
    """Have what is left in its buffer go nowhere, or Python's end would fail at it once more."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


class StandardError(io.TextIOBase):
    """The current ``sys.stderr``; text that cannot be written there is forgotten.

    Remarks must not end a run whose terminal was closed or whose log is on a full disk.
    """

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._now.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._now.flush()

    def isatty(self) -> bool:
        return bool(self._now.isatty())

    def fileno(self) -> int:
        return int(self._now.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self._now.encoding)

    @property
    def _now(self) -> Any:
        # A progress bar puts a proxy in its place, which would write here again.
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)
