"""MVTec, MPDD and BTAD: folders train, test and ground_truth, in any case of letters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from fapm.datasets import folder_names
from fapm.datasets.folders import is_skipped, left_out, sorted_out, walk
from fapm.datasets.good_folder import good_folder
from fapm.datasets.samples import (
    TITLES,
    Dataset,
    Sample,
    choose_category,
    make_dataset,
    name_of,
    report,
)
from fapm.errors import DatasetError
from fapm.system.paths import is_directory

# What a mask may be called after its picture: 000_mask.png, 000_mask_1.png, 000_gt.png.
_MASK_ENDING = re.compile(r"[_-](mask|label|gt|ground_?truth)([_-]?\d+)?$", re.IGNORECASE)


def tree_layout(root: Path) -> str:
    """``mvtec`` or ``btad`` by the folder of the good pictures; empty if there is none."""
    for layout, name in (("mvtec", "good"), ("btad", "ok")):
        if _below(root, "train", name):
            return layout
    return ""


def _below(root: Path, *names: str) -> Path | None:
    """The folder ``root/names`` in any case of letters, the exact one before others."""
    if not names:
        return root if is_directory(root) else None
    alike = [name for name in _names(root) if name.casefold() == names[0]]
    for name in sorted(alike, key=lambda name: name != names[0]):
        if found := _below(root / name, *names[1:]):
            return found
    return None


def trees(root: Path) -> list[str]:
    """Folders in ``root`` that are MVTec, MPDD or BTAD trees of their own."""
    return [name for name in _names(root) if not is_skipped(name) and tree_layout(root / name)]


def _names(folder: Path) -> list[str]:
    """Entries of a folder; none if it cannot be read, which whoever walks it reports."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def refuse_several_categories(root: Path) -> None:
    """Raise a ``CategoryError`` if there are data sets below ``root``."""
    if names := trees(root):
        raise choose_category(root, names)


def read_tree(root: Path, layout: str) -> Dataset:
    """MVTec, MPDD and BTAD: they differ in what the good pictures' folder is called."""
    good = "ok" if layout == "btad" else "good"
    train_root = _below(root, "train", good)
    if train_root is None:
        refuse_several_categories(root)
        raise DatasetError(f"{root}: {TITLES[layout]} layout needs a folder train/{good}")
    found = good_folder(train_root)
    train = [Sample(path, 0, (), "good") for path in found.pictures]

    test_root = _below(root, "test") or root / "test"
    masks_root = _below(root, "ground_truth") or root / "ground_truth"
    judged = sorted_out(walk(test_root))
    masks, unused = _match_masks(judged.pictures, test_root, walk(masks_root).files, masks_root)
    test: list[Sample] = []
    strays: list[Path] = []
    for path in judged.pictures:
        kind = path.relative_to(test_root).parts[0]
        if path.parent == test_root:
            strays.append(path)
        elif folder_names.meaning(kind) == "good":
            test.append(Sample(path, 0, (), "good"))
        else:
            test.append(Sample(path, 1, tuple(masks.get(path, ())), kind))
    return make_dataset(
        name_of(root),
        layout,
        train,
        test,
        report("mask", unused, "without a picture"),
        report("picture", strays, "left out, in test/ itself and not in test/KIND"),
        _in_test(left_out([judged])),
        found=found,
    )


def _in_test(line: str) -> str:
    return f"in the test, {line}" if line else ""


def _match_masks(
    pictures: Iterable[Path], test_root: Path, masks: Iterable[Path], masks_root: Path
) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Masks by the picture they belong to, and those that belong to none."""
    known = {_key(path.relative_to(test_root).with_suffix("")): path for path in pictures}
    matched: dict[Path, list[Path]] = {}
    unused: list[Path] = []
    for mask in masks:
        name = mask.relative_to(masks_root).with_suffix("")
        # NAME.png, NAME_mask_1.png, or anything in a folder NAME.
        keys = (_key(name), _key(name.parent / _MASK_ENDING.sub("", name.name)), _key(name.parent))
        picture = next((known[key] for key in keys if key in known), None)
        if picture is None:
            unused.append(mask)
        else:
            matched.setdefault(picture, []).append(mask)
    return matched, unused


def _key(name: Path) -> tuple[str, str]:
    """Folder in lower case and name: Windows writes folders as it likes."""
    return name.parent.as_posix().casefold(), name.name
