"""Pillow's warnings about metadata that nobody reads here, kept quiet in the threads that decode.

``warnings.catch_warnings`` puts the filters of the whole process back when it ends, so that threads
that overlap in it undo each other. Here one filter stays in the list and looks at who is asking: it
applies to Pillow's modules in a thread that decodes, and to nothing else.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Here(threading.local):
    decoding = False

    def match(self, module: str) -> bool:
        """Called as a filter's module pattern."""
        return self.decoding and module.startswith("PIL.")


_here = _Here()
_filter: Any = ("ignore", None, Warning, _here, 0)
_lock = threading.Lock()


@contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Ignore what Pillow warns of in this thread."""
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    if not filters or filters[0] is not _filter:  # others put theirs first, or all back
        with _lock:
            if _filter in filters:
                filters.remove(_filter)
            filters.insert(0, _filter)
    before, _here.decoding = _here.decoding, True
    try:
        yield
    finally:
        _here.decoding = before
