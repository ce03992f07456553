"""Folders and file lists, as published or as kept in a factory, to samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fapm.datasets.folders import find_pictures, refuse_unusable
from fapm.datasets.good_folder import good_folder
from fapm.datasets.listed import read_rows
from fapm.datasets.samples import (
    KINDS,
    TITLES,
    Dataset,
    Sample,
    choose_category,
    make_dataset,
    name_of,
)
from fapm.datasets.tables import Row, read_table
from fapm.datasets.trees import read_tree, refuse_several_categories, tree_layout, trees
from fapm.errors import DatasetError
from fapm.system.paths import is_directory, is_file

__all__ = ["LAYOUTS", "Dataset", "Sample", "categories", "load_dataset"]

LAYOUTS = ("auto", *TITLES)

_VISA_SPLIT = Path("split_csv", "1cls.csv")


def load_dataset(root: Path, layout: str = "auto", category: str | None = None) -> Dataset:
    """The samples of a folder or CSV file in one of :data:`LAYOUTS`.

    - ``folder``: every picture below it is for training; nothing else is known. ``auto`` takes it
      only for a :func:`fapm.datasets.good_folder.good_folder`.
    - ``mvtec``, ``mpdd``: train/good, test/KIND, ground_truth/KIND/NAME_mask.png.
    - ``btad``: train/ok, test/ok, test/ko, ground_truth/ko/NAME with any suffix.
    - ``visa``: split_csv/1cls.csv with the columns object, split, label, image, mask.
    - ``csv``: a file with a column path (or image) and, where known, label (0, good, normal, ok;
      1, defect, anomaly, bad, ko, ng), split (train, test) and mask. Paths are relative to the
      file. A row without a split is for training, or for the test if it is a defect. Several rows
      of one picture are one sample with several masks.

    Folders may be written in any case of letters. A picture may have several masks: NAME_mask.png
    beside NAME.png, NAME_mask_1.png, or all in a folder NAME.

    ``category`` is an object of VisA, or else the folder below ``root`` that has the layout.
    Harmless oddities (a mask without a picture, a defect without a mask) go into ``warnings``.

    Raises
    ------
    DatasetError
        ``root`` does not exist, does not have that layout, holds no pictures, or a category must be
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
        raise DatasetError(f"{root}: {TITLES[layout]} layout needs {wanted}, this is {given}")
    if layout == "visa":
        return _read_visa(root, category)
    if layout == "csv":
        table = read_table(root, ("path", "image"))
        return read_rows(root, table.rows, table.guessed, root.parent, root.stem, "csv")
    if layout == "folder":
        found = find_pictures(root) if said else good_folder(root)
        train = [Sample(path, None, (), KINDS[None]) for path in found.pictures]
        return make_dataset(name_of(root), "folder", train, [], found=found)
    return read_tree(root, layout)


def categories(root: Path) -> list[str]:
    """Values of ``category`` in :func:`load_dataset`; none where ``root`` is one data set.

    Raises
    ------
    DatasetError
        VisA's table of pictures cannot be read.
    """
    if _is_visa(root):
        return _objects(read_table(root / _VISA_SPLIT, ("image",)).rows)
    return trees(root)


def _detect(root: Path) -> str:
    if not is_directory(root):
        return "csv"
    if _is_visa(root):
        return "visa"
    if layout := tree_layout(root):
        return layout
    refuse_several_categories(root)
    return "folder"


def _is_visa(root: Path) -> bool:
    return is_file(root / _VISA_SPLIT)


def _enter_category(root: Path, category: str) -> Path:
    if not is_directory(root / category):
        raise _no_category(root, category, trees(root))
    return root / category


def _no_category(root: Path, category: str, names: Sequence[str]) -> DatasetError:
    known = ", ".join(names) or "none"
    return DatasetError(f"{root}: no category {category!r}; categories here: {known}")


def _read_visa(root: Path, category: str | None) -> Dataset:
    file = root / _VISA_SPLIT
    if not is_file(file):
        raise DatasetError(f"{root}: VisA layout needs a file {_VISA_SPLIT.as_posix()}")
    table = read_table(file, ("image",))
    rows = table.rows
    objects = _objects(rows)
    if category is None:
        if len(objects) > 1:
            raise choose_category(root, objects)
        category = objects[0]
    elif category not in objects:
        raise _no_category(root, category, objects)
    chosen = [row for row in rows if row.cells.get("object", "") == category]
    return read_rows(file, chosen, table.guessed, root, category or name_of(root), "visa")


def _objects(rows: Iterable[Row]) -> list[str]:
    return sorted({row.cells.get("object", "") for row in rows})
