"""Begin and end of a command: the signals it heeds, and its exit codes."""

from __future__ import annotations

import errno
import platform
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn

import typer

from fapm._version import __version__
from fapm.errors import FapmError, OutputError
from fapm.system import streams
from fapm.system.imports import import_problem

DEFECTS = 1  # and nothing else: a crash must not be taken for a defect
MENDABLE = 2  # and interrupted, which has always been said in one line as well
UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h
READER_GONE = 141  # 128 + SIGPIPE: what shells report of other programs

_ENDING = ("SIGTERM", "SIGHUP", "SIGBREAK")
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class Terminated(KeyboardInterrupt):
    """A signal ends this process: all that tidies up after Ctrl-C does so now."""


def run(build: Callable[[], Callable[[], object]]) -> NoReturn:
    """Build and run a typer application, and end the process with one of the exit codes above."""
    streams.open_missing()
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        # A file name that the terminal's encoding lacks must not end a run.
        sys.stdout.reconfigure(errors="backslashreplace")
    with _signals_heeded():
        try:
            code = _code(build())
        except (Exception, KeyboardInterrupt) as error:
            code = explain(error)
    sys.exit(code)


def explain(error: BaseException) -> int:
    """Say in one line on standard error what ended a command.

    Returns
    -------
    exit code
    """
    if isinstance(error, streams.ReaderGoneError):
        return READER_GONE
    if isinstance(error, FapmError):
        said = str(error).replace("\n", " ")
    elif isinstance(error, KeyboardInterrupt):
        what = str(error) if isinstance(error, Terminated) else "interrupted"
        said = f"{what}; no unfinished file is left behind"
    elif isinstance(error, OSError) and error.errno in _FULL:
        where = error.filename or tempfile.gettempdir()
        said = (
            f"{where}: cannot write: {error.strerror}; make room, or set TMPDIR to another folder"
        )
    elif isinstance(error, Exception) and (problem := import_problem(error)):
        said = problem  # a library that only this command imports
    else:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        streams.complain(f"fapm: unexpected error: {reason}; details: {_details(error)}")
        return UNEXPECTED
    streams.complain(f"fapm: {said}")
    return MENDABLE


def _code(application: Callable[[], object]) -> int:
    """The exit code of a typer application: its own, except where it is 1 without any defects."""
    try:
        application()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0
        if code == DEFECTS and isinstance(ending.__context__, BrokenPipeError):
            streams.abandon_stdout()
            return READER_GONE
        if code == DEFECTS and isinstance(ending.__context__, typer.Abort):
            return MENDABLE
        return code
    except OSError as error:  # commands explain their own: this is typer, which printed its help
        streams.abandon_stdout()
        raise OutputError(f"standard output: cannot write: {error.strerror}") from error
    return 0


def _details(error: BaseException) -> str:
    """The file that has the traceback; where none can be written it is on standard error."""
    lines = (
        f"fapm {__version__}, Python {platform.python_version()}, {platform.platform()}\n",
        f"{sys.argv}\n",
        *traceback.format_exception(error),
    )
    text = "".join(lines)
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace",
            prefix="fapm-error-", suffix=".txt", delete=False,
        ) as file:  # fmt: skip
            file.write(text)
    except OSError:
        streams.StandardError().write(text)
        return "above"
    return file.name


@contextmanager
def _signals_heeded() -> Iterator[None]:
    """Meanwhile ``kill`` and a terminal that is closed do what Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        for heeded in before:  # once is enough, or tidying up would be interrupted
            signal.signal(heeded, signal.SIG_IGN)
        raise Terminated(f"ended by {signal.Signals(number).name}")

    known = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    # What nohup has told us to ignore stays ignored. Only the main thread may ask.
    before = [number for number in known if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        before = []
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_DFL)
