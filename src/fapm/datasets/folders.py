"""Pictures in a folder and below it, and the files that are left out and why."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fapm.errors import DatasetError
from fapm.pictures.codec import IMAGE_SUFFIXES
from fapm.system.paths import is_directory, is_file

# Folders that a machine makes, in lower case: thumbnails and deleted files of a network storage,
# of Windows and of macOS. What is in them was not put there by people.
_MACHINES = frozenset(
    (
        "@eadir", "@__thumb", "@recently-snapshot", "@recycle", "@sharebin", "@tmp",
        "#recycle", "#snapshot", "~snapshot",
        "$recycle.bin", "recycler", "recycled", "system volume information", "found.000",
        "__macosx", "network trash folder", "temporary items", "lost+found",
    )
)  # fmt: skip
_MACHINES_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))


@dataclass(frozen=True)
class Files:
    """The result of a walk: files sorted by path as text, and links that were not followed."""

    files: tuple[Path, ...]
    upward: tuple[Path, ...]  # links to a folder that holds the one that was walked


@dataclass(frozen=True)
class Found:
    """The pictures of a source, and what else it has.

    Attributes
    ----------
    pictures
        sorted by path as text.
    others
        how many files are not read, by suffix.
    upward
        how many links to a folder above were not followed.
    """

    pictures: tuple[Path, ...]
    others: Counter[str]
    upward: int = 0


def walk(folder: Path) -> Files:
    """Files in ``folder`` and below it; none if it is no folder.

    Hidden files and folders, and those that machines make, are skipped. Links to folders are
    followed, but no folder is entered twice: there are no loops, and a picture is found once.

    Raises
    ------
    DatasetError
        A folder cannot be read.
    """
    if not is_directory(folder):
        return Files((), ())
    files: list[Path] = []
    upward: list[Path] = []
    seen: set[Path] = set()
    start = _real(folder)
    folders, links = deque([folder]), deque[Path]()
    while folders or links:
        # Links last, so that a picture is called by its own path and not by that of a link.
        here = folders.popleft() if folders else links.popleft()
        real = _real(here)
        if real in seen:
            continue
        if real in start.parents:
            upward.append(here)
            continue
        seen.add(real)
        for entry in _entries(here):
            path = here / entry.name
            if entry.is_symlink():
                (links if is_directory(path) else files).append(path)
            else:
                (folders if _is_folder(entry) else files).append(path)
    return Files(tuple(sorted(files, key=Path.as_posix)), tuple(upward))


def find_pictures(source: Path) -> Found:
    """Every picture in a folder and below it, by suffix; see :func:`walk`.

    A ``source`` that is itself a file is the only picture, whatever its name.

    Raises
    ------
    DatasetError
        ``source`` cannot be reached, cannot be read, is neither file nor folder, or holds no
        picture.
    """
    refuse_unusable(source)
    if is_file(source):
        return Found((source,), Counter())
    files = walk(source)
    found = sorted_out(files)
    if not found.pictures:
        count = len(files.files)
        what = f"no picture among {count} file{'' if count == 1 else 's'}" if count else (
            "the folder is empty"
        )  # fmt: skip
        raise DatasetError(f"{source}: {what}; pictures end in {' '.join(IMAGE_SUFFIXES)}")
    return found


def sorted_out(files: Files) -> Found:
    """Divide files by suffix: the pictures, and the number of others."""
    pictures, others = [], Counter[str]()
    for path in files.files:
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            pictures.append(path)
        else:
            others[suffix or "no suffix"] += 1
    return Found(tuple(pictures), others, len(files.upward))


def list_images(source: Path) -> list[Path]:
    """The pictures of :func:`find_pictures`, which says what it raises."""
    return list(find_pictures(source).pictures)


def left_out(found: Iterable[Found]) -> str:
    """One line of all that was found and is not read; empty if everything is."""
    others: Counter[str] = Counter()
    upward = 0
    for each in found:
        others += each.others
        upward += each.upward
    parts = []
    if others:
        suffixes = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        count = others.total()
        parts.append(f"{count} file{'' if count == 1 else 's'} of a format that is not read "
                     f"({suffixes})")  # fmt: skip
    if upward:
        parts.append(f"{upward} link{'' if upward == 1 else 's'} to a folder above")
    return f"left out: {', '.join(parts)}" if parts else ""


def is_skipped(name: str) -> bool:
    """Whether a file or folder is hidden, or was made by a machine and not put there by people."""
    return name.startswith(".") or name.lower() in _MACHINES | _MACHINES_FILES


def refuse_unusable(path: Path) -> None:
    """Nothing, if ``path`` is a file or a folder.

    Raises
    ------
    DatasetError
        It is neither, or the system does not let it be reached.
    """
    if is_file(path) or is_directory(path):
        return
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte
        raise DatasetError(f"{path}: no such file or folder; check the path") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be reached ({error.strerror})") from error
    raise DatasetError(
        f"{path}: is neither a file nor a folder (a pipe or a device?); write the pictures to a "
        "folder and name that"
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_skipped(entry.name)]
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read ({error.strerror})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # whoever reads it says why
        return False


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))
