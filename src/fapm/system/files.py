"""Files that appear whole or not at all, and files that grow as their lines are made.

Only what goes wrong in writing such a file is an ``OutputError`` that names it. Whatever else is
raised while it is open, such as by the picture that is read meanwhile, passes as it is.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from fapm.errors import OutputError
from fapm.system import paths, streams

_SYNCED_EVERY = 1.0  # seconds of lines that a crash of the machine may cost


@contextmanager
def replaced_when_complete(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the block ends well, and else vanishes.

    Where ``path`` is a link it stays one, and what it leads to is replaced. The new file has the
    mode of the old one, and its owner where that is permitted. A pipe or a device is written into.

    Raises
    ------
    OutputError
        It cannot be written. A file that was there before is untouched.
    """
    refuse_unwritable(path)
    if paths.is_stream(path) or streams.is_stdout(path):
        with _into_stream(path) as file:
            yield file
        return
    target = paths.followed(path)
    with _replaced(target, path, like=target) as file:
        yield file


def before_name(path: Path) -> Path:
    """Where :func:`keep_before` keeps the file at `path`: ``part.before.fapm`` for ``part.fapm``.

    It is beside the file itself: where `path` is a link, beside what that leads to.
    """
    target = paths.followed(path)
    ending = f".before{target.suffix}"
    return target.with_name(cut_name(target.stem, ending, longest_name(target.parent)))


def keep_before(path: Path) -> Path | None:
    """Copy the file at `path` to :func:`before_name`, for whoever is about to replace it.

    What was kept there before is replaced; if that is a link, the link is, and not what it leads
    to. The copy has the mode of the file, and its owner where that is permitted.

    Returns
    -------
    the copy; None: there is no regular file to keep.

    Raises
    ------
    OutputError
        It cannot be kept; both files are what they were.
    """
    if not paths.is_file(path) or streams.is_stdout(path):
        return None
    target, kept = paths.followed(path), before_name(path)
    try:
        source = target.open("rb")
    except OSError as error:
        raise OutputError(f"{path}: cannot be kept as {kept}: {_reason(error)}") from error
    with source, _replaced(kept, kept, like=target) as copy:
        shutil.copyfileobj(source, copy)
    return kept


@contextmanager
def growing(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A writer that puts lines into a file as they are made, and never takes them back.

    A file that was there before keeps its content until the first line, and its place: links,
    mode and owner stay. A line that does not fit any more is not left there in part. A pipe or a
    device is written into.

    Raises
    ------
    OutputError
        It cannot be written, also from what takes the lines. Those so far stay.
    """
    refuse_unwritable(path)
    is_new = not paths.exists(path)
    with _writing(path):
        file = _GrowingFile(path)
    try:
        yield file.write
        file.finish()
    finally:
        file.close()
        if is_new and not file.begun:
            with suppress(OSError):
                path.unlink()


def longest_name(directory: Path) -> int:
    """Bytes that the file system allows a name."""
    try:
        return os.pathconf(directory, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # AttributeError: Windows
        return 255


def cut_name(stem: str, ending: str, longest: int) -> str:
    """A file's name of no more than `longest` bytes; what is too much of its stem is cut off."""
    while stem and len(os.fsencode(stem + ending)) > longest:
        stem = stem[:-1]
    return stem + ending


def make_directory(path: Path) -> None:
    """Create ``path`` and what is above it.

    Raises
    ------
    OutputError
        It cannot be created, is a file, or may not be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot create: {error.strerror or error}") from error
    _refuse_closed(path, path)


def refuse_unwritable(path: Path) -> None:
    """Say now, not after the work, that a file cannot be written.

    Raises
    ------
    OutputError
        Its directory is missing or may not be written to, or it is there and neither a regular
        file nor a pipe or a device that takes characters.
    """
    target = paths.followed(path)
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not paths.is_directory(target.parent):
            raise OutputError(f"{path}: no such directory: {target.parent}") from None
        mode = stat.S_IFREG
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise OutputError(f"{path}: cannot write: {_reason(error)}") from error
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: cannot write: is a directory; name a file in it")
    if paths.is_stream(target):
        return
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path}: cannot write: not a regular file")
    _refuse_closed(target.parent, path)


def _refuse_closed(folder: Path, path: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: cannot write: no permission to write in {folder}")


class _NamedFile(io.FileIO):
    """A file whose errors name ``path``, under which people know it."""

    def __init__(self, file: Path | int, mode: str, path: Path) -> None:
        self._path = path
        with _writing(path):
            super().__init__(file, mode)

    def write(self, data: Any) -> int:
        with _writing(self._path):
            return super().write(data)

    def close(self) -> None:
        with _writing(self._path):
            super().close()


class _GrowingFile:
    """The file of :func:`growing`."""

    def __init__(self, path: Path) -> None:
        # Not truncated before the first line: until then the old results are all there is.
        self._file = _NamedFile(path, "ab", path)
        self._path = path
        self._regular = paths.is_file(path)
        self._size = 0
        self._synced = time.monotonic()
        self.begun = False

    def write(self, line: bytes) -> None:
        if not self.begun:
            self._begin()
        try:
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
        except OutputError:
            with suppress(OSError):
                self._file.truncate(self._size)
            raise
        self._size += len(line)
        if time.monotonic() - self._synced > _SYNCED_EVERY:
            self._sync()

    def finish(self) -> None:
        if not self.begun:
            self._begin()
        self._sync()

    def close(self) -> None:
        self._file.close()

    def _begin(self) -> None:
        self.begun = True
        if self._regular:
            with _writing(self._path):
                self._file.truncate(0)
            _sync_folder(paths.followed(self._path).parent)

    def _sync(self) -> None:
        if self._regular:
            with _writing(self._path):
                os.fsync(self._file.fileno())
        self._synced = time.monotonic()


@contextmanager
def _replaced(target: Path, path: Path, *, like: Path) -> Iterator[BinaryIO]:
    """:func:`replaced_when_complete` at `target` itself; errors name `path`.

    Owner and mode are those of `like`.
    """
    # Not tempfile: its files are for their owner only, and results are there to be passed on.
    unfinished = target.parent / f".fapm-{secrets.token_hex(8)}.tmp"
    try:
        with _opened(unfinished, "xb", path) as file:
            yield file
            file.flush()
            with _writing(path):
                os.fsync(file.fileno())
        _take_over(like, unfinished)
        _put_in_place(unfinished, target, path)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            unfinished.unlink()
        raise


@contextmanager
def _opened(file: Path | int, mode: str, path: Path) -> Iterator[BinaryIO]:
    with io.BufferedWriter(_NamedFile(file, mode, path)) as buffered:
        yield cast(BinaryIO, buffered)


@contextmanager
def _into_stream(path: Path) -> Iterator[BinaryIO]:
    if not streams.is_stdout(path):
        with _opened(path, "wb", path) as file:
            yield file
        return
    # Opened anew it would be written from its beginning, over what has been printed.
    with _writing(path):
        descriptor = os.dup(1)
    with _opened(descriptor, "wb", path) as file:
        yield file


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {_reason(error)}") from error


def _take_over(old: Path, new: Path) -> None:
    """Give ``new`` the owner, the group and the mode of ``old``, as far as that is permitted."""
    try:
        was = old.stat()
    except OSError:  # there is none
        return
    if hasattr(os, "chown"):
        for owner, group in ((-1, was.st_gid), (was.st_uid, -1)):
            with suppress(OSError):
                os.chown(new, owner, group)
    with suppress(OSError):
        new.chmod(stat.S_IMODE(was.st_mode))


def _put_in_place(complete: Path, target: Path, path: Path) -> None:
    try:
        complete.replace(target)
    except OSError as error:
        if not paths.is_file(target):
            raise OutputError(f"{path}: cannot write: {_reason(error)}") from error
        _overwrite(target, complete, path)
    _sync_folder(target.parent)


def _overwrite(target: Path, complete: Path, path: Path) -> None:
    """Write into a file whose place nothing can take: one that is mounted by itself."""
    try:
        with complete.open("rb") as source, target.open("r+b") as file:
            shutil.copyfileobj(source, file)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except (OSError, KeyboardInterrupt) as error:
        kept = target.with_name(complete.stem.lstrip(".") + target.suffix)
        complete.replace(kept)
        raise OutputError(
            f"{path}: cannot be replaced: {_reason(error)}; what was to be in it is in {kept}"
        ) from error
    complete.unlink()


def _sync_folder(folder: Path) -> None:
    """See that a new name outlives a crash of the machine, where the system can."""
    with suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or "interrupted"
