"""Whether all pictures below a folder may be taken for good ones."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from fapm import folder_names
from fapm.errors import DatasetError, ImageError
from fapm.folders import Found, find_pictures
from fapm.masks import looks_like_mask

# NAME_mask, NAME_label_1, NAME-GT and so on; and mask_NAME.
_MASK_WORD = r"(masks?|labels?|gt|ground[ _-]?truth|seg|segmentation|annotation)"
_SUFFIXED = re.compile(rf"(.+?)[ _.-]+{_MASK_WORD}([ _.-]?\d+)?", re.IGNORECASE)
_PREFIXED = re.compile(rf"{_MASK_WORD}[ _.-]+(.+)", re.IGNORECASE)


def good_folder(root: Path) -> Found:
    """The pictures of a folder that holds good ones and nothing else.

    Its own name does not matter: who names a folder wants what is in it.

    Raises
    ------
    DatasetError
        As :func:`fapm.folders.find_pictures`; or what is below it shows by its names that it is
        not all good. The line names the folder to take instead, where there is one.
    """
    found = find_pictures(root)
    folders = {path.parent.relative_to(root) for path in found.pictures}
    reason = _mixed_folders(folders) or _masks_beside(found.pictures)
    if reason:
        better = _good_ones(folders)
        name = f", e.g. {root / better[0]}" if better else " itself"
        raise DatasetError(
            f"{root}: not every picture below it is a good one: {reason}; name the folder of good "
            f"pictures{name}"
        )
    return found


def mask_names(pictures: Iterable[Path]) -> list[Path]:
    """Pictures that are called like the mask of another one beside them."""
    named = defaultdict(set)
    files = list(pictures)
    for path in files:
        named[path.parent].add(path.stem.casefold())
    return [path for path in files if any(s in named[path.parent] for s in _masked(path))]


def _masked(mask: Path) -> Iterator[str]:
    """Stems of the pictures that ``mask`` may belong to."""
    if found := _SUFFIXED.fullmatch(mask.stem):
        yield found[1].casefold()
    if found := _PREFIXED.fullmatch(mask.stem):
        yield found[2].casefold()


def _mixed_folders(folders: Iterable[PurePath]) -> str:
    """Which folder shows that they are not all good; empty if none does."""
    holding = set(folders)
    below = {folder for path in holding for folder in (path, *path.parents)} - {PurePath()}
    for folder in sorted(below, key=lambda folder: (len(folder.parts), folder.as_posix())):
        kind = folder_names.meaning(folder.name)
        if kind in ("bad", "split", "mask"):
            return f"it has a folder {folder.as_posix()!r}"
        if kind != "good":
            continue
        for other in sorted(below):
            if other.parent == folder.parent and folder_names.meaning(other.name) != "good":
                return f"it has {other.as_posix()!r} beside {folder.as_posix()!r}"
        if folder.parent in holding:
            return f"it has pictures beside the folder {folder.as_posix()!r}"
    return ""


def _good_ones(folders: Iterable[PurePath]) -> list[PurePath]:
    """Folders that are called good, and are not of a test; those for training first."""
    called: set[PurePath] = set()
    for path in folders:
        kinds = [folder_names.meaning(part) for part in path.parts]
        if "good" in kinds and not {"bad", "mask"} & set(kinds):
            called.add(PurePath(*path.parts[: kinds.index("good") + 1]))

    def rank(folder: PurePath) -> tuple[int, int, str]:
        splits = [part for part in folder.parts if folder_names.meaning(part) == "split"]
        training = any(part.casefold().startswith("train") for part in splits)
        return 0 if training else 2 if splits else 1, len(folder.parts), folder.as_posix()

    return sorted(called, key=rank)


def _masks_beside(pictures: Sequence[Path]) -> str:
    """Which file shows that masks lie among the pictures; empty if none does."""
    if masks := mask_names(pictures):
        return f"{len(masks)} of its files are called like masks of others, e.g. {masks[0].name}"
    stems = defaultdict(list)
    for path in pictures:
        stems[path.with_suffix("")].append(path)
    # One pair is looked at: a camera may well write the same picture in two formats.
    for pair in (paths for paths in stems.values() if len(paths) > 1):
        masked = [_is_mask(path) for path in pair]
        if any(masked) and not all(masked):
            return f"{pair[masked.index(True)].name} looks like the mask of the picture beside it"
        break
    return ""


def _is_mask(path: Path) -> bool:
    try:
        return looks_like_mask(path)
    except ImageError:  # whoever learns it says why
        return False
