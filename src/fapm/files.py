"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fapm.errors import OutputError


@contextmanager
def replaced_when_complete(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well, and else vanishes.

    Raises
    ------
    OutputError
        It cannot be written. A file that was there before is untouched.
    """
    refuse_unwritable(path)
    # Not tempfile: its files are for their owner only, and results are there to be passed on.
    unfinished = path.parent / f".fapm-{secrets.token_hex(8)}.tmp"
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:  # Ctrl-C too
        unfinished.unlink(missing_ok=True)
        # A pipe that broke is not this file's fault, though it broke while this was written.
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise OutputError(f"{path}: cannot write: {error.strerror or error}") from error
        raise


def make_directory(path: Path) -> None:
    """Create `path` and what is above it.

    Raises
    ------
    OutputError
        It cannot be created, or is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot create: {error.strerror or error}") from error


def refuse_unwritable(path: Path) -> None:
    """Say now, not after the work, that a file cannot be written.

    Raises
    ------
    OutputError
        Its directory is missing or may not be written to, or it is there and not a regular file.
    """
    if not path.parent.is_dir():
        raise OutputError(f"{path}: no such directory: {path.parent}")
    if path.is_dir():
        raise OutputError(f"{path}: cannot write: is a directory; name a file in it")
    if path.exists() and not path.is_file():  # a device or pipe would be replaced by a file
        raise OutputError(f"{path}: cannot write: not a regular file")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: cannot write: no permission to write in {path.parent}")
