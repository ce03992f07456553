"""Where results go: JSON, JSON lines, CSV, overlay pictures."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapm.bundle.calibration import VERDICTS
from fapm.errors import ImageError, OutputError
from fapm.frames.preparation import Failure
from fapm.inspection.prediction import Prediction
from fapm.inspection.session import Sink
from fapm.pictures import codec
from fapm.plain import finite
from fapm.reports.heatmap import draw_inspected, overlay
from fapm.system.files import cut_name, growing, longest_name, replaced_when_complete
from fapm.system.streams import print_text

if TYPE_CHECKING:
    from fapm.detector import Detector
    from fapm.measure.evaluate import Evaluation

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
    """One JSON object a line, into a file that grows, or to stdout for ``-``."""
    with _text(target) as write_text:

        def write(result: Prediction | Failure) -> None:
            write_text(json.dumps(record(result)) + "\n")

        yield write


@contextmanager
def csv_table(target: str) -> Iterator[Sink]:
    """A row a picture, into a file that grows, or to stdout for ``-``."""
    columns = (*_COLUMNS, "error")
    with _text(target) as write_text:
        heading = [_csv_row(columns)]

        def write(result: Prediction | Failure) -> None:
            row = record(result)
            row["regions"] = len(row.get("regions", ()))
            row["compared_with"] = row.get("compared_with", {}).get("picture")
            # The heading comes with the first row: until then an old table stays.
            first = heading.pop() if heading else ""
            write_text(first + _csv_row([row.get(column) for column in columns]))

        yield write


def overlays(directory: Path, max_pixels: int, lost: Callable[[str], None]) -> Sink:
    """A PNG a picture: the heatmap on a scale fixed by the threshold, over the picture.

    Parameters
    ----------
    lost
        called with the reason where one cannot be made: the other results do not suffer.
    """
    taken: set[str] = set()
    longest = longest_name(directory)

    def write(result: Prediction | Failure) -> None:
        if isinstance(result, Failure):
            return
        source = Path(result.source)
        try:
            picture = codec.read_image(source, max_pixels)
            if result.inspected is not None:
                picture = draw_inspected(picture, result.inspected)
            painted = overlay(picture, result.anomaly_map, result.map_threshold)
            name = _free_name(source, taken, longest)
            with replaced_when_complete(directory / name) as file:
                file.write(codec.encode_png(painted))
        except (ImageError, OutputError) as error:
            lost(str(error))

    return write


@contextmanager
def _text(target: str) -> Iterator[Callable[[str], None]]:
    if target == "-":
        yield print_text
        return
    with growing(Path(target)) as write:
        yield lambda text: write(text.encode("utf-8", errors="surrogateescape"))


def _csv_row(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _free_name(source: Path, taken: set[str], longest: int) -> str:
    """Pictures of the same name get their folder's name in front, or else a number behind.

    Names that differ in nothing but case are one to many file systems.
    """
    stem = source.stem
    names = itertools.chain(
        (
            cut_name(stem, ".png", longest),
            cut_name(f"{source.parent.name}_{stem}", ".png", longest),
        ),
        (cut_name(stem, f"_{n}.png", longest) for n in itertools.count(2)),
    )
    name = next(name for name in names if name.casefold() not in taken)
    taken.add(name.casefold())
    return name
