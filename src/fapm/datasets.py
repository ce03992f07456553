"""Folders and file lists, as published or as kept in a factory, to samples."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fapm.errors import DatasetError
from fapm.images import IMAGE_SUFFIXES

_TITLES = {
    "folder": "Folder",
    "mvtec": "MVTec",
    "visa": "VisA",
    "btad": "BTAD",
    "mpdd": "MPDD",
    "csv": "CSV",
}
LAYOUTS = ("auto", *_TITLES)

_LABELS: dict[str, int | None] = {
    "": None,
    **dict.fromkeys(("0", "good", "normal", "ok"), 0),
    **dict.fromkeys(("1", "defect", "anomaly", "bad", "ko"), 1),
}
_KINDS = {None: "unknown", 0: "good", 1: "defect"}
_VISA_SPLIT = Path("split_csv", "1cls.csv")


@dataclass(frozen=True)
class Sample:
    """A picture and what is known about it."""

    path: Path
    label: int | None  # 0 good, 1 defect, None unknown
    mask: Path | None  # where the defect is
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


@dataclass(frozen=True)
class _Row:
    """A line of a CSV file: its number and its cells by lower-case column name."""

    line: int
    cells: dict[str, str]


def list_images(source: Path) -> list[Path]:
    """Every picture in a folder and below it, by suffix, sorted by path as text.

    Hidden files and folders are skipped; links to folders are not followed, so there are no loops.
    A `source` that is itself a file is the only result, whatever its name.

    Raises
    ------
    DatasetError
        `source` does not exist, cannot be read or holds no picture.
    """
    if not source.exists():
        raise _missing(source)
    if source.is_file():
        return [source]
    files = _walk(source)
    images = _only_images(files)
    if not images:
        found = f"no picture among {_count(files, 'file')}" if files else "the folder is empty"
        raise DatasetError(f"{source}: {found}; pictures end in {' '.join(IMAGE_SUFFIXES)}")
    return images


def load_dataset(root: Path, layout: str = "auto", category: str | None = None) -> Dataset:
    """The samples of a folder or CSV file in one of :data:`LAYOUTS`.

    - ``folder``: every picture below it is for training; nothing else is known.
    - ``mvtec``, ``mpdd``: train/good, test/KIND, ground_truth/KIND/NAME_mask.png.
    - ``btad``: train/ok, test/ok, test/ko, ground_truth/ko/NAME with any suffix.
    - ``visa``: split_csv/1cls.csv with the columns object, split, label, image, mask.
    - ``csv``: a file with a column path (or image) and, where known, label (0, good, normal, ok;
      1, defect, anomaly, bad, ko), split (train, test) and mask. Paths are relative to the file.
      A row without a split is for training, or for the test if it is a defect.

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
    if not root.exists():
        raise _missing(root)
    may_be_visa = layout in ("auto", "visa")
    if category is not None and not (may_be_visa and _is_visa(root)):
        root, category = _enter_category(root, category), None
    elif may_be_visa and _is_visa(root.parent) and not _is_visa(root):
        root, category = root.parent, root.name
    if layout == "auto":
        layout = _detect(root)
    if root.is_file() != (layout == "csv"):
        wanted, given = ("a CSV file", "a folder") if root.is_dir() else ("a folder", "a file")
        raise DatasetError(f"{root}: {_TITLES[layout]} layout needs {wanted}, this is {given}")
    if layout == "visa":
        return _read_visa(root, category)
    if layout == "csv":
        return _read_table(root, _read_rows(root, ("path", "image")), root.parent, root.stem, "csv")
    if layout == "folder":
        train = [Sample(path, None, None, _KINDS[None]) for path in list_images(root)]
        return _dataset(_name(root), "folder", train, [])
    return _read_tree(root, layout)


def categories(root: Path) -> list[str]:
    """What ``category`` may be in :func:`load_dataset`; none where ``root`` is one data set.

    Raises
    ------
    DatasetError
        VisA's table of pictures cannot be read.
    """
    if _is_visa(root):
        return _objects(_read_rows(root / _VISA_SPLIT, ("image",)))
    return _trees(root)


def _detect(root: Path) -> str:
    if root.is_file():
        return "csv"
    if _is_visa(root):
        return "visa"
    if (root / "train" / "good").is_dir():
        return "mvtec"
    if (root / "train" / "ok").is_dir():
        return "btad"
    _refuse_several_categories(root)
    for part in ("train", "test", "ground_truth"):
        if (root / part).is_dir():  # taken whole it would be fitted on its defects and masks
            raise DatasetError(
                f"{root}: has a folder {part!r}, but neither train/good (MVTec, MPDD) nor train/ok "
                "(BTAD); name the folder of good pictures itself"
            )
    return "folder"


def _is_visa(root: Path) -> bool:
    return (root / _VISA_SPLIT).is_file()


def _trees(root: Path) -> list[str]:
    """Folders in `root` that are MVTec, MPDD or BTAD trees of their own."""
    if not root.is_dir():
        return []
    goods = (*root.glob("*/train/good"), *root.glob("*/train/ok"))
    return sorted({good.parents[1].name for good in goods})


def _enter_category(root: Path, category: str) -> Path:
    if not (root / category).is_dir():
        raise _no_category(root, category, _trees(root))
    return root / category


def _refuse_several_categories(root: Path) -> None:
    if names := _trees(root):
        raise _choose_category(root, names)


def _choose_category(root: Path, names: Sequence[str]) -> DatasetError:
    return DatasetError(
        f"{root}: holds the categories {', '.join(names)}; choose one, e.g. --category {names[0]}"
    )


def _no_category(root: Path, category: str, names: Sequence[str]) -> DatasetError:
    known = ", ".join(names) or "none"
    return DatasetError(f"{root}: no category {category!r}; categories here: {known}")


def _missing(path: Path) -> DatasetError:
    return DatasetError(f"{path}: no such file or folder; check the path")


def _read_tree(root: Path, layout: str) -> Dataset:
    """MVTec, MPDD and BTAD: they differ in what the good pictures' folder is called."""
    good = "ok" if layout == "btad" else "good"
    if not (root / "train" / good).is_dir():
        _refuse_several_categories(root)
        raise DatasetError(f"{root}: {_TITLES[layout]} layout needs a folder train/{good}")
    train = [Sample(path, 0, None, "good") for path in list_images(root / "train" / good)]

    masks_root, test_root = root / "ground_truth", root / "test"
    masks = {_mask_key(path, masks_root): path for path in _walk(masks_root)}
    test: list[Sample] = []
    strays: list[Path] = []
    for path in _only_images(_walk(test_root)):
        relative = path.relative_to(test_root)
        mask = masks.pop(relative.with_suffix(""), None)
        kind = relative.parts[0]
        if path.parent == test_root:
            strays.append(path)
        elif kind == good:
            test.append(Sample(path, 0, None, "good"))
        else:
            test.append(Sample(path, 1, mask, kind))
    return _dataset(
        _name(root),
        layout,
        train,
        test,
        _report("mask", masks.values(), "without a picture"),
        _report("picture", strays, "left out, in test/ itself and not in test/KIND"),
    )


def _mask_key(path: Path, masks_root: Path) -> Path:
    """The picture a mask belongs to: its path below test/, without suffix."""
    return path.relative_to(masks_root).parent / path.stem.removesuffix("_mask")


def _read_visa(root: Path, category: str | None) -> Dataset:
    file = root / _VISA_SPLIT
    if not file.is_file():
        raise DatasetError(f"{root}: VisA layout needs a file {_VISA_SPLIT.as_posix()}")
    rows = _read_rows(file, ("image",))
    objects = _objects(rows)
    if category is None:
        if len(objects) > 1:
            raise _choose_category(root, objects)
        category = objects[0]
    elif category not in objects:
        raise _no_category(root, category, objects)
    chosen = [row for row in rows if row.cells.get("object", "") == category]
    return _read_table(file, chosen, root, category or _name(root), "visa")


def _objects(rows: Iterable[_Row]) -> list[str]:
    return sorted({row.cells.get("object", "") for row in rows})


def _read_rows(file: Path, path_columns: tuple[str, ...]) -> list[_Row]:
    """The lines of a CSV file, at least one, that has one of `path_columns`."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            # Excel separates with semicolons where the decimal sign is a comma.
            delimiter = ";" if ";" in stream.readline() else ","
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=delimiter, restval="")
            columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
            rows = [
                _Row(reader.line_num, {key: cells[name].strip() for key, name in columns.items()})
                for cells in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file}: cannot be read as a CSV file ({error})") from error
    if not any(column in columns for column in path_columns):
        wanted = " or ".join(path_columns)
        raise DatasetError(f"{file}: the first line must name a column {wanted}")
    if not rows:
        raise DatasetError(f"{file}: lists no pictures")
    return rows


def _read_table(file: Path, rows: Sequence[_Row], base: Path, name: str, layout: str) -> Dataset:
    """Rows whose paths are relative to `base`."""
    splits: dict[str, list[Sample]] = {"train": [], "test": []}
    lost: list[Path] = []
    lost_masks: list[Path] = []
    for row in rows:
        where = f"{file}, line {row.line}"
        label = _parse_label(row.cells.get("label", ""), where)
        split = row.cells.get("split", "").lower() or ("test" if label == 1 else "train")
        if split not in splits:
            raise DatasetError(f"{where}: split {split!r} is unknown; write train or test")
        path = base / (row.cells.get("path") or row.cells.get("image", ""))
        mask = base / row.cells["mask"] if row.cells.get("mask") else None
        if not path.is_file():
            lost.append(path)
            continue
        if mask is not None and not mask.is_file():
            lost_masks.append(mask)
            mask = None
        splits[split].append(Sample(path, label, mask if label != 0 else None, _KINDS[label]))
    if len(lost) == len(rows):
        raise DatasetError(f"{file}: not one of {_count(rows, 'picture')} exists, e.g. {lost[0]}")
    return _dataset(
        name,
        layout,
        splits["train"],
        splits["test"],
        _report("picture", lost, "left out, no such file"),
        _report("mask", lost_masks, "left out, no such file"),
    )


def _parse_label(text: str, where: str) -> int | None:
    try:
        return _LABELS[text.lower()]
    except KeyError:
        known = ", ".join(filter(None, _LABELS))
        raise DatasetError(f"{where}: label {text!r} is unknown; write one of {known}") from None


def _dataset(
    name: str, layout: str, train: Sequence[Sample], test: Sequence[Sample], *warnings: str
) -> Dataset:
    defects = [sample for sample in test if sample.label == 1]
    masks = [sample for sample in defects if sample.mask is not None]
    message = f"{_TITLES[layout]} layout: {_count(train, 'training picture')}"
    if test:
        message += f", {_count(test, 'test picture')}"
        message += f" ({_count(defects, 'defect')}, {_count(masks, 'mask')})"
    unmasked = [sample.path for sample in defects if sample.mask is None] if masks else []
    odd = [sample.path for sample in train if sample.label == 1]
    lines = (
        *warnings,
        _report("defect", unmasked, "without a mask"),
        _report("training picture", odd, "labelled as a defect"),
    )
    return Dataset(name, layout, tuple(train), tuple(test), message, tuple(filter(None, lines)))


def _report(noun: str, paths: Iterable[Path], fault: str) -> str:
    """One line about all of `paths`; empty if there are none."""
    found = list(paths)
    return f"{_count(found, noun)} {fault}, e.g. {found[0]}" if found else ""


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _name(root: Path) -> str:
    return root.resolve().name


def _walk(folder: Path) -> list[Path]:
    """Files in `folder` and below it that are not hidden, sorted; none if there is no folder."""
    if not folder.is_dir():
        return []
    files: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_refuse_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files, key=Path.as_posix)


def _refuse_unreadable(error: OSError) -> None:
    raise DatasetError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _only_images(files: Iterable[Path]) -> list[Path]:
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
