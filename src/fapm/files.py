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
    if not path.parent.is_dir():
        raise OutputError(f"{path}: no such directory: {path.parent}")
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
        if isinstance(error, OSError):
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
