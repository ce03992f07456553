"""Questions about paths that never raise.

``Path.exists``, ``is_file`` and ``is_dir`` raise for a name that is too long, a folder that may not
be entered and a share that is gone. None of these is there for us: the answer is no. Who needs the
system's reason opens the file and reports the ``OSError``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def exists(path: str | Path) -> bool:
    """Whether something at this path can be reached; links are followed."""
    return _mode(path) is not None


def is_file(path: str | Path) -> bool:
    """Whether a regular file at this path can be reached; links are followed."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_directory(path: str | Path) -> bool:
    """Whether a folder at this path can be reached; links are followed."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _mode(path: str | Path) -> int | None:
    try:
        return os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError):  # ValueError: a null byte
        return None
