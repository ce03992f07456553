"""Questions about paths that never raise.

``Path.exists``, ``is_file`` and ``is_dir`` raise for a name that is too long, a folder that may not
be entered and a share that is gone. None of these is there for us: the answer is no. Who needs the
system's reason opens the file and reports the ``OSError``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple


class Identity(NamedTuple):
    """Identity of the file at a path, and of its content; see :func:`identity`."""

    device: int
    number: int
    size: int
    changed: int


def exists(path: str | Path) -> bool:
    """Whether something at this path can be reached; links are followed."""
    return _status(path) is not None


def is_file(path: str | Path) -> bool:
    """Whether a regular file at this path can be reached; links are followed."""
    status = _status(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def is_directory(path: str | Path) -> bool:
    """Whether a folder at this path can be reached; links are followed."""
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def is_stream(path: str | Path) -> bool:
    """Whether this path is a pipe or a device such as ``/dev/null``; links are followed."""
    status = _status(path)
    return status is not None and (stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode))


def same(one: str | Path | int, other: str | Path | int) -> bool:
    """Whether two paths, or open descriptors, lead to one file or folder."""
    here, there = _status(one), _status(other)
    return here is not None and there is not None and os.path.samestat(here, there)


def identity(path: str | Path) -> Identity | None:
    """A value that changes when the file at this path is replaced or written; None: no file."""
    status = _status(path)
    if status is None:
        return None
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def followed(path: Path) -> Path:
    """The target of a link, which need not exist; the path itself if it is no link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114


def _status(path: str | Path | int) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # ValueError: a null byte
        return None
