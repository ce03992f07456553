"""The one answer to: which are the good pictures here? For fit, update and audit.

``fapm evaluate`` has it by way of :func:`fapm.datasets.load_dataset`, which gives it here too.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fapm import folder_names
from fapm.datasets import Dataset, load_dataset
from fapm.errors import DatasetError
from fapm.folders import left_out, refuse_unusable
from fapm.frames import Picture
from fapm.good_folder import mask_names
from fapm.paths import is_directory

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
        taken), a picture file, a list of those, an array uint8 ``[N, H, W, 3]``, or any iterable
        of paths and arrays uint8 ``[H, W, 3]`` or ``[H, W]``. A picture that is named twice is
        taken once. What was found before is returned as it is.

    Raises
    ------
    DatasetError
        No such folder, no pictures in it, or a folder whose pictures are not all good.
    """
    if isinstance(source, Taken):
        return source
    items = list(_flat(source))
    folders = [item for item in items if isinstance(item, Path) and is_directory(item)]
    _refuse_mixed(folders)
    data = {folder: load_dataset(folder) for folder in folders}
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
    return _taken(pictures, _understood(data), data.values(), _called_masks(single))


def good_pictures(data: Dataset) -> Taken:
    """What a data set has to learn from; the lines leave out its own message."""
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
    if isinstance(source, (str, Path)):
        yield Path(source)
    elif isinstance(source, np.ndarray):
        yield from source if source.ndim == 4 else [source]
    elif isinstance(source, Iterable):
        for item in source:
            yield from _flat(item)
    else:
        raise TypeError(f"expected a folder, paths or arrays, not {type(source).__name__}")


def _refuse_mixed(folders: Sequence[Path]) -> None:
    """``fapm fit parts/*`` names good and bad folders at once; one that is named alone is meant."""
    kinds = {folder: folder_names.meaning(folder.resolve().name) for folder in folders}
    wrong = [folder for folder, kind in kinds.items() if kind in ("bad", "mask")]
    if wrong and len(folders) > len(wrong):
        raise DatasetError(
            f"{wrong[0]}: is called like a folder of pictures that are not good; leave it out"
        )


def _understood(data: dict[Path, Dataset]) -> str:
    """Which layouts were read, and which sub-folders were taken."""
    parts = [each.message for each in data.values() if each.layout != "folder"]
    plain = {folder: each for folder, each in data.items() if each.layout == "folder"}
    counts: Counter[str] = Counter()
    for folder, each in plain.items():
        for path in each.good:
            inner = path.parent.relative_to(folder)
            name = inner if len(data) == 1 else Path(folder.name, inner)
            counts[name.as_posix() if inner.parts else ""] += 1
    loose = counts.pop("", 0)
    if counts:
        named = [f"{name} ({count})" for name, count in sorted(counts.items())]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        also = f", {loose} directly" if loose else ""
        parts.append(f"taken from sub-folders: {', '.join(named[:_NAMED])}{more}{also}")
    return "; ".join(parts)


def _once(pictures: Sequence[Picture]) -> list[Picture]:
    """Without those that are the same file as one before, by another path or the same."""
    seen: set[tuple[int, int]] = set()
    kept: list[Picture] = []
    for picture in pictures:
        try:
            file = None if not isinstance(picture, Path) else picture.stat()
        except OSError:  # whoever reads it says why
            file = None
        if file is not None and (file.st_dev, file.st_ino) in seen:
            continue
        if file is not None:
            seen.add((file.st_dev, file.st_ino))
        kept.append(picture)
    return kept


def _repeated(count: int) -> str:
    if not count:
        return ""
    each = "1 picture that is" if count == 1 else f"{count} pictures that are"
    return f"left out: {each} the same file as another"


def _copies(pictures: Sequence[Picture]) -> str:
    """How many are the same byte for byte; a fit takes them for as many different parts."""
    groups = [[picture for picture in pictures if isinstance(picture, Path)]]
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


def _called_masks(pictures: Sequence[Path]) -> str:
    """Files that were named one by one are taken as they are, but it is said."""
    masks = mask_names(pictures)
    if not masks:
        return ""
    return f"{len(masks)} of the files are called like masks of others, e.g. {masks[0].name}"
