"""Whether all pictures below a folder may be taken for good ones."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from fapm.datasets import folder_names
from fapm.datasets.folders import Found, find_pictures
from fapm.errors import DatasetError, ImageError
from fapm.pictures.masks import looks_like_mask

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
        As :func:`fapm.datasets.folders.find_pictures`; or what is below it shows by its names that
        it is
        not all good. The line names the folder to take instead, where there is one.
    """
    found = find_pictures(root)
    folders = {path.parent.relative_to(root) for path in found.pictures}
    if reason := _mixed_folders(folders):
        better = _good_ones(folders)
        advice = f"name the folder of good pictures{f', e.g. {root / better}' if better else ''}"
    elif reason := _mixed_files(found.pictures):
        advice = "name the good pictures themselves, or put the others into another folder"
    else:
        return found
    raise DatasetError(f"{root}: not every picture below it is a good one: {reason}; {advice}")


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
    """A line on the folder that shows that they are not all good; empty if none does."""
    holding = set(folders)
    below = sorted(_with_parents(holding), key=lambda path: (len(path.parts), path.as_posix()))
    for folder in below:
        kind = folder_names.meaning(folder.name)
        if kind in ("bad", "split", "mask"):
            return f"it has a folder {folder.as_posix()!r}"
        if kind == "good":
            beside = [path for path in below if path.parent == folder.parent]
            others = [path for path in beside if folder_names.meaning(path.name) != "good"]
            if others:
                return f"it has {others[0].as_posix()!r} beside {folder.as_posix()!r}"
            if folder.parent in holding:
                return f"it has pictures beside the folder {folder.as_posix()!r}"
    return _contrast(below)


def _with_parents(folders: Iterable[PurePath]) -> set[PurePath]:
    return {folder for path in folders for folder in (path, *path.parents)} - {PurePath()}


def _contrast(paths: Iterable[PurePath]) -> str:
    """Two names in one folder that tell good from bad; empty if there are none."""
    named = defaultdict(list)
    for path in paths:
        named[path.parent].append(path.stem)
    for names in named.values():
        if pair := folder_names.contrast(names):
            return f"it has {pair[1]!r} beside {pair[0]!r}"
    return ""


def _good_ones(folders: Iterable[PurePath]) -> PurePath | None:
    """The folder to name: one that is called good, rather of the training than of no split."""
    found: list[tuple[bool, int, str]] = []
    for path in folders:
        kinds = [folder_names.meaning(part) for part in path.parts]
        if "good" in kinds and not {"bad", "mask"} & set(kinds):
            called = PurePath(*path.parts[: kinds.index("good") + 1])
            training = any(part.casefold().startswith("train") for part in called.parts)
            found.append((not training, len(called.parts), called.as_posix()))
    return PurePath(min(found)[2]) if found else None


def _mixed_files(pictures: Sequence[Path]) -> str:
    """A line on the file that shows that not all parts are good; empty if none does."""
    if masks := mask_names(pictures):
        return f"{_files(masks)} called like masks of others, e.g. {masks[0].name}"
    if reason := _contrast(pictures):
        return reason
    stems = defaultdict(list)
    for path in pictures:
        stems[path.with_suffix("")].append(path)
    # One pair is looked at: a camera may well write the same picture in two formats.
    pair = next((paths for paths in stems.values() if len(paths) > 1), [])
    masked = [_is_mask(path) for path in pair]
    if any(masked) and not all(masked):
        return f"{pair[masked.index(True)].name} looks like the mask of the picture beside it"
    return ""


def _files(paths: Sequence[Path]) -> str:
    return "1 file is" if len(paths) == 1 else f"{len(paths)} files are"


def _is_mask(path: Path) -> bool:
    try:
        return looks_like_mask(path)
    except ImageError:  # whoever learns it says why
        return False
