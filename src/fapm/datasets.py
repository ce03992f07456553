"""Folders and file lists, as published or as kept in a factory, to samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fapm import folder_names
from fapm.errors import CategoryError, DatasetError
from fapm.folders import (
    Found,
    find_pictures,
    is_skipped,
    left_out,
    refuse_unusable,
    sorted_out,
    walk,
)
from fapm.good_folder import good_folder
from fapm.paths import is_directory, is_file
from fapm.tables import Row, read_table, refuse_guess

_TITLES = {
    "folder": "Folder",
    "mvtec": "MVTec",
    "visa": "VisA",
    "btad": "BTAD",
    "mpdd": "MPDD",
    "csv": "CSV",
}
LAYOUTS = ("auto", *_TITLES)

_KINDS = {None: "unknown", 0: "good", 1: "defect"}
_LABELS = "0, good, ok, normal, pass or io; 1, defect, anomaly, bad, ko, ng, fail or nio"
_VISA_SPLIT = Path("split_csv", "1cls.csv")
# What a mask may be called after its picture: 000_mask.png, 000_mask_1.png, 000_gt.png.
_MASK_ENDING = re.compile(r"[_-](mask|label|gt|ground_?truth)([_-]?\d+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """A picture and what is known about it."""

    path: Path
    label: int | None  # 0 good, 1 defect, None unknown
    masks: tuple[Path, ...]  # where the defect is: what is inside any of them
    kind: str  # the defect's folder; without one "defect"; or "good", "unknown"


@dataclass(frozen=True)
class Dataset:
    """What to fit on and what to judge; `message` and `warnings` are lines for people."""

    name: str
    layout: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    message: str
    warnings: tuple[str, ...] = ()
    found: Found | None = None  # where the training pictures are from, if that is a folder

    @property
    def good(self) -> tuple[Path, ...]:
        """The pictures to fit on: those for training, without any that is labelled a defect."""
        return tuple(sample.path for sample in self.train if sample.label != 1)


def load_dataset(root: Path, layout: str = "auto", category: str | None = None) -> Dataset:
    """The samples of a folder or CSV file in one of :data:`LAYOUTS`.

    - ``folder``: every picture below it is for training; nothing else is known. ``auto`` takes it
      only for a :func:`fapm.good_folder.good_folder`.
    - ``mvtec``, ``mpdd``: train/good, test/KIND, ground_truth/KIND/NAME_mask.png.
    - ``btad``: train/ok, test/ok, test/ko, ground_truth/ko/NAME with any suffix.
    - ``visa``: split_csv/1cls.csv with the columns object, split, label, image, mask.
    - ``csv``: a file with a column path (or image) and, where known, label (0, good, normal, ok;
      1, defect, anomaly, bad, ko, ng), split (train, test) and mask. Paths are relative to the
      file. A row without a split is for training, or for the test if it is a defect. Several rows
      of one picture are one sample with several masks.

    Folders may be written in any case of letters. A picture may have several masks: NAME_mask.png
    beside NAME.png, NAME_mask_1.png, or all in a folder NAME.

    `category` is an object of VisA, or else the folder below `root` that has the layout. What is
    odd but harmless (a mask without a picture, a defect without a mask) goes into `warnings`.

    Raises
    ------
    DatasetError
        `root` does not exist, does not have that layout, holds no pictures, or a category must be
        chosen.
    """
    if layout not in LAYOUTS:
        raise DatasetError(f"layout: unknown {layout!r}; choose one of {', '.join(LAYOUTS)}")
    refuse_unusable(root)
    may_be_visa = layout in ("auto", "visa")
    if category is not None and not (may_be_visa and _is_visa(root)):
        root, category = _enter_category(root, category), None
    elif may_be_visa and _is_visa(root.parent) and not _is_visa(root):
        root, category = root.parent, root.name
    said = layout != "auto"
    if not said:
        layout = _detect(root)
    if is_file(root) != (layout == "csv"):
        wanted, given = ("a CSV file", "a folder") if is_directory(root) else ("a folder", "a file")
        raise DatasetError(f"{root}: {_TITLES[layout]} layout needs {wanted}, this is {given}")
    if layout == "visa":
        return _read_visa(root, category)
    if layout == "csv":
        table = read_table(root, ("path", "image"))
        return _read_rows(root, table.rows, table.guessed, root.parent, root.stem, "csv")
    if layout == "folder":
        found = find_pictures(root) if said else good_folder(root)
        train = [Sample(path, None, (), _KINDS[None]) for path in found.pictures]
        return _dataset(_name(root), "folder", train, [], found=found)
    return _read_tree(root, layout)


def categories(root: Path) -> list[str]:
    """What ``category`` may be in :func:`load_dataset`; none where ``root`` is one data set.

    Raises
    ------
    DatasetError
        VisA's table of pictures cannot be read.
    """
    if _is_visa(root):
        return _objects(read_table(root / _VISA_SPLIT, ("image",)).rows)
    return _trees(root)


def _detect(root: Path) -> str:
    if not is_directory(root):
        return "csv"
    if _is_visa(root):
        return "visa"
    if layout := _tree_layout(root):
        return layout
    _refuse_several_categories(root)
    return "folder"


def _is_visa(root: Path) -> bool:
    return is_file(root / _VISA_SPLIT)


def _tree_layout(root: Path) -> str:
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


def _trees(root: Path) -> list[str]:
    """Folders in `root` that are MVTec, MPDD or BTAD trees of their own."""
    return [name for name in _names(root) if not is_skipped(name) and _tree_layout(root / name)]


def _names(folder: Path) -> list[str]:
    """What is in a folder; nothing if it cannot be read, which whoever walks it reports."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _enter_category(root: Path, category: str) -> Path:
    if not is_directory(root / category):
        raise _no_category(root, category, _trees(root))
    return root / category


def _refuse_several_categories(root: Path) -> None:
    if names := _trees(root):
        raise _choose_category(root, names)


def _choose_category(root: Path, names: Sequence[str]) -> CategoryError:
    return CategoryError(
        f"{root}: holds the categories {', '.join(names)}; choose one, e.g. --category {names[0]}",
        names,
    )


def _no_category(root: Path, category: str, names: Sequence[str]) -> DatasetError:
    known = ", ".join(names) or "none"
    return DatasetError(f"{root}: no category {category!r}; categories here: {known}")


def _read_tree(root: Path, layout: str) -> Dataset:
    """MVTec, MPDD and BTAD: they differ in what the good pictures' folder is called."""
    good = "ok" if layout == "btad" else "good"
    train_root = _below(root, "train", good)
    if train_root is None:
        _refuse_several_categories(root)
        raise DatasetError(f"{root}: {_TITLES[layout]} layout needs a folder train/{good}")
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
    return _dataset(
        _name(root),
        layout,
        train,
        test,
        _report("mask", unused, "without a picture"),
        _report("picture", strays, "left out, in test/ itself and not in test/KIND"),
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


def _read_visa(root: Path, category: str | None) -> Dataset:
    file = root / _VISA_SPLIT
    if not is_file(file):
        raise DatasetError(f"{root}: VisA layout needs a file {_VISA_SPLIT.as_posix()}")
    table = read_table(file, ("image",))
    rows = table.rows
    objects = _objects(rows)
    if category is None:
        if len(objects) > 1:
            raise _choose_category(root, objects)
        category = objects[0]
    elif category not in objects:
        raise _no_category(root, category, objects)
    chosen = [row for row in rows if row.cells.get("object", "") == category]
    return _read_rows(file, chosen, table.guessed, root, category or _name(root), "visa")


def _objects(rows: Iterable[Row]) -> list[str]:
    return sorted({row.cells.get("object", "") for row in rows})


def _read_rows(
    file: Path, rows: Sequence[Row], guessed: bool, base: Path, name: str, layout: str
) -> Dataset:
    """Rows whose paths are relative to `base`; `guessed` as in :class:`fapm.tables.Table`."""
    splits: dict[str, dict[Path, Sample]] = {"train": {}, "test": {}}
    lost: list[Path] = []
    lost_masks: list[Path] = []
    repeated: list[Path] = []

    def found(cell: str, losses: list[Path]) -> Path | None:
        path = _located(base, cell)
        if is_file(path):
            return path
        if guessed and not cell.isascii():
            raise refuse_guess(file, cell)
        losses.append(path)
        return None

    for row in rows:
        where = f"{file}, line {row.line}"
        label = _parse_label(row.cells.get("label", ""), where)
        samples = splits[_parse_split(row.cells.get("split", ""), label, where)]
        path = found(row.cells.get("path") or row.cells.get("image", ""), lost)
        if path is None:
            continue
        mask = found(row.cells["mask"], lost_masks) if row.cells.get("mask") else None
        masks: tuple[Path, ...] = () if mask is None or label == 0 else (mask,)
        if path in samples:
            repeated.append(path)
            masks = _more_masks(samples[path], label, masks, where)
        samples[path] = Sample(path, label, masks, _KINDS[label])
    if len(lost) == len(rows):
        raise DatasetError(f"{file}: not one of {_count(rows, 'picture')} exists, e.g. {lost[0]}")
    train, test = splits["train"], splits["test"]
    return _dataset(
        name,
        layout,
        list(train.values()),
        list(test.values()),
        _report("picture", lost, "left out, no such file"),
        _report("mask", lost_masks, "left out, no such file"),
        _report("line", repeated, "of a picture that another line has too; it counts once"),
        _report("picture", train.keys() & test.keys(), "both in train and in test"),
    )


def _more_masks(
    before: Sample, label: int | None, masks: tuple[Path, ...], where: str
) -> tuple[Path, ...]:
    """The masks of a picture that has another line already."""
    if before.label != label:
        raise DatasetError(
            f"{where}: {before.path} has another label in a line before; leave one of them out"
        )
    return tuple(dict.fromkeys((*before.masks, *masks)))


def _located(base: Path, cell: str) -> Path:
    """The file that a cell names, also where it was written on Windows."""
    path = base / cell
    return path if is_file(path) else base / cell.replace("\\", "/")


def _parse_split(text: str, label: int | None, where: str) -> str:
    split = text.lower() or ("test" if label == 1 else "train")
    if split not in ("train", "test"):
        raise DatasetError(f"{where}: split {split!r} is unknown; write train or test")
    return split


def _parse_label(text: str, where: str) -> int | None:
    label = folder_names.label_of(text)
    if text and label is None:
        raise DatasetError(f"{where}: label {text!r} is unknown; write one of {_LABELS}")
    return label


def _dataset(
    name: str,
    layout: str,
    train: Sequence[Sample],
    test: Sequence[Sample],
    *warnings: str,
    found: Found | None = None,
) -> Dataset:
    defects = [sample for sample in test if sample.label == 1]
    masks = [sample for sample in defects if sample.masks]
    message = f"{_TITLES[layout]} layout: {_count(train, 'training picture')}"
    if test:
        message += f", {_count(test, 'test picture')}"
        message += f" ({_count(defects, 'defect')}, {_count(masks, 'mask')})"
    unmasked = [sample.path for sample in defects if not sample.masks] if masks else []
    odd = [sample.path for sample in train if sample.label == 1]
    lines = (
        *warnings,
        _report("defect", unmasked, "without a mask"),
        _report("training picture", odd, "labelled as a defect"),
    )
    return Dataset(
        name, layout, tuple(train), tuple(test), message, tuple(filter(None, lines)), found
    )


def _report(noun: str, paths: Iterable[Path], fault: str) -> str:
    """One line about all of `paths`; empty if there are none."""
    found = list(paths)
    return f"{_count(found, noun)} {fault}, e.g. {found[0]}" if found else ""


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _name(root: Path) -> str:
    return root.resolve().name
