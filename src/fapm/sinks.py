"""Where results go: JSON, JSON lines, CSV, overlay pictures."""

from __future__ import annotations

import csv
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from fapm import images
from fapm.calibration import Verdict
from fapm.files import make_directory, replaced_when_complete
from fapm.prediction import Failure, Prediction
from fapm.reports.heatmap import draw_inspected, overlay

if TYPE_CHECKING:
    from fapm.detector import Detector
    from fapm.evaluation import Evaluation

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

_COLUMNS = (
    "source",
    "verdict",
    "reason",
    "score",
    "percentile",
    "threshold",
    "regions",
    "compared_with",
)

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
        "reason": result.reason,
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


def figures(
    name: str, detector: Detector, found: Evaluation, fit_seconds: float | None, bundle_bytes: int
) -> dict[str, Any]:
    """An evaluation as plain JSON: null where labels or masks are missing."""
    verdicts = Counter(r.verdict for r in found.results if isinstance(r, Prediction))
    counts = found.counts
    return {
        "dataset": name,
        **found.summary(),
        "threshold": finite(detector.threshold_),
        "caught": counts and counts.true_positives,
        "missed": counts and counts.false_negatives,
        "false_alarms": counts and counts.false_positives,
        "passed": counts and counts.true_negatives,
        "verdicts": {verdict: verdicts[verdict] for verdict in VERDICTS},
        "failed": [{"source": f.source, "error": f.error} for f in found.failures],
        "fit_seconds": fit_seconds,
        "inspect_ms_median": found.inspect_ms_median,
        "keys": sum(len(bank.keys) for bank in detector.fitted_.banks),
        "bundle_bytes": bundle_bytes,
        "config": detector.config.model_dump(mode="json"),
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
        writer = csv.writer(file, lineterminator="\n")
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
        if result.inspected is not None:
            picture = draw_inspected(picture, result.inspected)
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
    """Pictures of the same name get their folder's name in front, or else a number behind."""
    stem = source.stem
    names = itertools.chain(
        (stem, f"{source.parent.name}_{stem}"), (f"{stem}_{n}" for n in itertools.count(2))
    )
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return f"{name}.png"


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None
