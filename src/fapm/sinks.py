"""Where inspection results go: JSON lines, CSV, overlay pictures."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeAlias

from fapm import images
from fapm.files import make_directory, replaced_when_complete
from fapm.prediction import Failure, Prediction
from fapm.reports.heatmap import overlay

_COLUMNS = ("source", "verdict", "score", "percentile", "threshold", "regions", "compared_with")


# Takes results one by one.
Sink: TypeAlias = "Callable[[Prediction | Failure], None]"


def record(result: Prediction | Failure) -> dict[str, Any]:
    """A result as plain JSON: raw numbers, null where there is none."""
    if isinstance(result, Failure):
        return {"source": result.source, "verdict": "failed", "error": result.error}
    comparison = result.comparison
    return {
        "source": result.source,
        "verdict": result.verdict,
        "score": result.score,
        "percentile": finite(result.percentile),
        "threshold": finite(result.threshold),
        "map_threshold": finite(result.map_threshold),
        "regions": [
            {
                "x": region.x,
                "y": region.y,
                "width": region.width,
                "height": region.height,
                "area": region.area,
                "peak": region.peak,
            }
            for region in result.regions
        ],
        "compared_with": {
            "picture": comparison.picture,
            "distance": comparison.distance,
            "layer": comparison.layer,
            "here": comparison.here._asdict(),
            "there": comparison.there._asdict(),
        },
        "error": None,
    }


@contextmanager
def json_lines(target: str) -> Iterator[Sink]:
    """One JSON object a line, into a file that appears when complete, or to stdout for ``-``."""
    with _text(target) as file:

        def write(result: Prediction | Failure) -> None:
            file.write(json.dumps(record(result)) + "\n")
            if target == "-":
                file.flush()

        yield write


@contextmanager
def csv_table(target: str) -> Iterator[Sink]:
    """A row a picture, into a file that appears when complete, or to stdout for ``-``."""
    with _text(target) as file:
        writer = csv.writer(file)
        writer.writerow((*_COLUMNS, "error"))

        def write(result: Prediction | Failure) -> None:
            row = record(result)
            row["regions"] = len(row.get("regions", ()))
            row["compared_with"] = row.get("compared_with", {}).get("picture")
            writer.writerow([row.get(column) for column in (*_COLUMNS, "error")])

        yield write


@contextmanager
def overlays(directory: Path, max_pixels: int) -> Iterator[Sink]:
    """A PNG a picture: the heatmap on a scale fixed by the threshold, over the picture."""
    make_directory(directory)
    taken: set[str] = set()

    def write(result: Prediction | Failure) -> None:
        if isinstance(result, Failure):
            return
        source = Path(result.source)
        picture = images.read_image(source, max_pixels)
        painted = overlay(picture, result.anomaly_map, result.map_threshold)
        name = _free_name(source, taken)
        with replaced_when_complete(directory / name) as file:
            file.write(images.encode_png(painted))

    yield write


@contextmanager
def _text(target: str) -> Iterator[TextIOWrapper | Any]:
    if target == "-":
        yield sys.stdout
        return
    with replaced_when_complete(Path(target)) as file:
        text = TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
        yield text
        text.flush()
        text.detach()  # the file is closed by who opened it


def _free_name(source: Path, taken: set[str]) -> str:
    """Pictures of the same name in several folders get their folder's name in front."""
    name = f"{source.stem}.png"
    for parent in source.parents:
        if name not in taken:
            break
        name = f"{parent.name}_{name}"
    taken.add(name)
    return name


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None
