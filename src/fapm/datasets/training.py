"""The one answer to: which are the good pictures here? For fit, update and audit.

``fapm evaluate`` has it by way of :func:`fapm.datasets.loading.load_dataset`, which gives it here
too.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fapm.datasets import folder_names
from fapm.datasets.folders import left_out, refuse_unusable
from fapm.datasets.good_folder import mask_names
from fapm.datasets.loading import Dataset, load_dataset
from fapm.errors import CategoryError, DatasetError
from fapm.pictures import codec
from fapm.pictures.sources import Picture
from fapm.system.paths import is_directory, is_file

_NAMED = 5  # sub-folders that a line names
_HEAD = 2**16  # bytes of a file that are compared first


@dataclass(frozen=True)
class Taken:
    """Pictures to learn, and at most three lines on what was understood and left out."""

    pictures: tuple[Picture, ...]
    lines: tuple[str, ...]


def training_pictures(source: object) -> Taken:
    """The pictures to learn.

    Parameters
    ----------
    source
        a folder (searched recursively; of a data set's folder only its training pictures are
        taken), a picture as :func:`fapm.pictures.codec.read` takes it, a list of those, or an
        array uint8
        ``[N, H, W, 3]``. A picture that is named twice is taken once. A :class:`Taken` is returned
        as it is.

    Raises
    ------
    DatasetError
        No such folder, no pictures in it, or a folder whose pictures are not all good.
    ImageError
        It is nothing that pictures come in.
    """
    if isinstance(source, Taken):
        return source
    items = list(_flat(source))
    folders = [item for item in items if isinstance(item, Path) and is_directory(item)]
    data = {folder: _load(folder) for folder in folders}
    pictures: list[Picture] = []
    for item in items:
        if not isinstance(item, Path):
            pictures.append(item)
        elif item in data:
            pictures += data[item].good
        else:
            refuse_unusable(item)
            pictures.append(item)
    single = [item for item in items if isinstance(item, Path) and item not in data]
    return _taken(pictures, _understood(data), data.values(), _doubts(folders, single))


def good_pictures(data: Dataset) -> Taken:
    """Pictures of a data set to learn from; the lines leave out its own message."""
    return _taken(data.good, "", [data], "")


def _taken(
    pictures: Sequence[Picture], understood: str, data: Iterable[Dataset], doubt: str
) -> Taken:
    once = _once(pictures)
    others = left_out(each.found for each in data if each.found is not None)
    lines = (
        understood,
        "; ".join(filter(None, (_repeated(len(pictures) - len(once)), others))),
        "; ".join(filter(None, (_copies(once), doubt))),
    )
    return Taken(tuple(once), tuple(filter(None, lines)))


def _flat(source: object) -> Iterator[Picture]:
    if codec.is_picture(source):
        yield codec.lasting(source)
    else:
        for item in codec.several(source):
            yield from _flat(item)


def _load(folder: Path) -> Dataset:
    try:
        return load_dataset(folder)
    except CategoryError as error:  # an option chooses where there is one; here a folder does
        raise DatasetError(
            f"{folder}: holds the categories {', '.join(error.names)}; name the folder of one, "
            f"e.g. {folder / error.names[0]}"
        ) from None


def _understood(data: dict[Path, Dataset]) -> str:
    """A line on the layouts that were read and the folders that were taken."""
    parts = [each.message for each in data.values() if each.layout != "folder"]
    counts: Counter[str] = Counter()
    for folder, each in data.items():
        if each.layout == "folder":
            base = folder if len(data) == 1 else folder.parent
            counts.update(path.parent.relative_to(base).as_posix() for path in each.good)
    if set(counts) - {"."}:
        counts["itself"] += counts.pop(".", 0)
        named = [f"{name} ({count})" for name, count in sorted((+counts).items())]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        parts.append(f"taken from the folders {', '.join(named[:_NAMED])}{more}")
    return "; ".join(parts)


def _once(pictures: Sequence[Picture]) -> list[Picture]:
    """Without those that are the same file as one before, by another path or the same."""
    seen: set[tuple[int, int]] = set()
    kept: list[Picture] = []
    for picture in pictures:
        file = _identity(picture)
        if file in seen:
            continue
        kept.append(picture)
        if file is not None:
            seen.add(file)
    return kept


def _identity(picture: Picture) -> tuple[int, int] | None:
    """The identity of a file, whatever path leads there; None if nobody knows."""
    if not isinstance(picture, Path):
        return None
    try:
        file = picture.stat()
    except OSError:  # whoever reads it says why
        return None
    return (file.st_dev, file.st_ino) if file.st_ino else None


def _repeated(count: int) -> str:
    if not count:
        return ""
    each = "1 picture that is" if count == 1 else f"{count} pictures that are"
    return f"left out: {each} the same file as another"


def _copies(pictures: Sequence[Picture]) -> str:
    """A line on files that are the same byte for byte: a fit takes each for another part."""
    # Files only: to open a pipe waits for a writer, and a device may have no end.
    groups = [[path for path in pictures if isinstance(path, Path) and is_file(path)]]
    for key in (_size, _head, _whole):  # most pictures differ in size, and are not read
        groups = [alike for group in groups for alike in _alike(group, key)]
    count = sum(len(alike) - 1 for alike in groups)
    if not count:
        return ""
    return (
        f"{count} of {len(pictures)} pictures {'is a copy' if count == 1 else 'are copies'} of "
        f"another, e.g. {groups[0][1].name}: a copy teaches nothing, but counts"
    )


def _alike(paths: Iterable[Path], key: Callable[[Path], object]) -> list[list[Path]]:
    """Groups of two and more that have the same key."""
    groups: dict[object, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _size(path: Path) -> object:
    try:
        return path.stat().st_size
    except OSError:
        return path


def _head(path: Path) -> object:
    return _digest(path, _HEAD)


def _whole(path: Path) -> object:
    return _digest(path, -1)


def _digest(path: Path, limit: int) -> object:
    """Of a file's first bytes, or of all; the path itself where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.blake2b(file.read(limit)).digest()
    except OSError:
        return path


def _doubts(folders: Sequence[Path], files: Sequence[Path]) -> str:
    """A line on names that are not those of good parts; ``fapm fit parts/*`` takes them all."""
    wrong = [folder.name for folder in folders if folder_names.meaning(folder.name) == "bad"]
    wrong += [path.name for path in mask_names(files)]
    if pair := folder_names.contrast(path.stem for path in files):
        wrong.append(pair[1])
    if not wrong or len(folders) + len(files) == 1:
        return ""
    return f"learnt as good, though not called so: {', '.join(wrong[:_NAMED])}"
