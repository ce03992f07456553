"""Samples: pictures and what is known about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fapm.datasets.folders import Found
from fapm.errors import CategoryError

TITLES = {
    "folder": "Folder",
    "mvtec": "MVTec",
    "visa": "VisA",
    "btad": "BTAD",
    "mpdd": "MPDD",
    "csv": "CSV",
}
KINDS = {None: "unknown", 0: "good", 1: "defect"}


@dataclass(frozen=True)
class Sample:
    """A picture and what is known about it."""

    path: Path
    label: int | None  # 0 good, 1 defect, None unknown
    masks: tuple[Path, ...]  # where the defect is: what is inside any of them
    kind: str  # the defect's folder; without one "defect"; or "good", "unknown"


@dataclass(frozen=True)
class Dataset:
    """Pictures to fit on and to judge; ``message`` and ``warnings`` are lines for people."""

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


def make_dataset(
    name: str,
    layout: str,
    train: Sequence[Sample],
    test: Sequence[Sample],
    *warnings: str,
    found: Found | None = None,
) -> Dataset:
    """Samples with the line that says what they are, and the warnings that all layouts share."""
    defects = [sample for sample in test if sample.label == 1]
    masks = [sample for sample in defects if sample.masks]
    message = f"{TITLES[layout]} layout: {count(train, 'training picture')}"
    if test:
        message += f", {count(test, 'test picture')}"
        message += f" ({count(defects, 'defect')}, {count(masks, 'mask')})"
    unmasked = [sample.path for sample in defects if not sample.masks] if masks else []
    odd = [sample.path for sample in train if sample.label == 1]
    lines = (
        *warnings,
        report("defect", unmasked, "without a mask"),
        report("training picture", odd, "labelled as a defect"),
    )
    return Dataset(
        name, layout, tuple(train), tuple(test), message, tuple(filter(None, lines)), found
    )


def report(noun: str, paths: Iterable[Path], fault: str) -> str:
    """One line about all of ``paths``; empty if there are none."""
    found = list(paths)
    return f"{count(found, noun)} {fault}, e.g. {found[0]}" if found else ""


def count(things: Sequence[object], noun: str) -> str:
    """``1 mask``, ``2 masks``."""
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def name_of(root: Path) -> str:
    """The name of a data set in this folder."""
    return root.resolve().name


def choose_category(root: Path, names: Sequence[str]) -> CategoryError:
    """The error where one of several data sets must be chosen."""
    return CategoryError(
        f"{root}: holds the categories {', '.join(names)}; choose one, e.g. --category {names[0]}",
        names,
    )
