"""Rows of a table to samples: what VisA and CSV files have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fapm.datasets import folder_names
from fapm.datasets.samples import KINDS, Dataset, Sample, count, make_dataset, report
from fapm.datasets.tables import Row, refuse_guess
from fapm.errors import DatasetError
from fapm.system.paths import is_file

_LABELS = "0, good, ok, normal, pass or io; 1, defect, anomaly, bad, ko, ng, fail or nio"


def read_rows(
    file: Path, rows: Sequence[Row], guessed: bool, base: Path, name: str, layout: str
) -> Dataset:
    """Rows with paths relative to ``base``; ``guessed`` is that of their table."""
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
        samples[path] = Sample(path, label, masks, KINDS[label])
    if len(lost) == len(rows):
        raise DatasetError(f"{file}: not one of {count(rows, 'picture')} exists, e.g. {lost[0]}")
    train, test = splits["train"], splits["test"]
    return make_dataset(
        name,
        layout,
        list(train.values()),
        list(test.values()),
        report("picture", lost, "left out, no such file"),
        report("mask", lost_masks, "left out, no such file"),
        report("line", repeated, "of a picture that another line has too; it counts once"),
        report("picture", train.keys() & test.keys(), "both in train and in test"),
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
