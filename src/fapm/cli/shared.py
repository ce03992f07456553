"""Parts that several commands share: options, fitting with progress, the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fapm.cli import console
from fapm.config import Config
from fapm.engines.base import Runtime
from fapm.errors import ImageError
from fapm.frames.preparation import Failure
from fapm.inspection.session import failed
from fapm.reports.html import write_report
from fapm.system.files import make_directory, refuse_unwritable
from fapm.system.streams import is_stdout

if TYPE_CHECKING:
    from fapm.detector import Detector
    from fapm.measure.evaluate import Evaluation

REPORT = "report.html"

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress, no remarks")]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="larger pictures are refused (decompression bombs)")
]
Model = Annotated[Path, typer.Option("--model", "-m", help="a bundle written by fapm fit")]
Roi = Annotated[
    str | None,
    typer.Option(
        help="what is inspected: a mask picture (white is inside) or polygons in JSON",
        metavar="FILE",
    ),
]
Ignore = Annotated[str | None, typer.Option(help="what is not inspected, as --roi", metavar="FILE")]
FitRoi = Annotated[
    str | None,
    typer.Option(
        help="what is inspected: a mask picture (white is inside), polygons in JSON, or auto: "
        "what stands out from a plain background in the good pictures",
        metavar="FILE|auto",
    ),
]
Report = Annotated[Path | None, typer.Option(help="folder for an HTML report")]


def dash_for_stdout(target: str | None) -> str | None:
    """Read the value of an option for files: ``-`` for ``/dev/stdout`` and its like.

    A file of that name must not be opened anew, much less replaced.
    """
    return "-" if target is not None and is_stdout(target) else target


Json = Annotated[
    str | None,
    typer.Option("--json", help="JSON file of all figures, - for stdout", callback=dash_for_stdout),
]


def refuse_unwritable_targets(*targets: str | Path | None) -> None:
    """:func:`fapm.system.files.refuse_unwritable` for those that are files."""
    for target in targets:
        if target is not None and target != "-":
            refuse_unwritable(Path(target))


def make_report_folder(folder: Path | None) -> None:
    """Say now, not after the work, that a report cannot be written."""
    if folder is not None:
        make_directory(folder)
        refuse_unwritable(folder / REPORT)


def fit_detector(
    source: Any,
    config: Config,
    runtime: Runtime,
    max_pixels: int,
    quiet: bool,
    *,
    roi: str | None = None,
    ignore: str | None = None,
) -> tuple[Detector, float]:
    from fapm.datasets.training import training_pictures
    from fapm.detector import Detector

    taken = training_pictures(source)
    for line in taken.lines:
        console.remark(quiet, line)
    detector = Detector(config, runtime=runtime, max_pixels=max_pixels)
    started = time.perf_counter()
    with console.progress(quiet) as advance:
        detector.fit(
            taken,
            roi=roi,
            ignore=ignore,
            progress=advance,
            remark=partial(console.remark, quiet),
        )
    seconds = time.perf_counter() - started
    for note in detector.notes_:
        if note not in taken.lines:  # those were said before the work
            console.remark(quiet, f"note: {note}")
    return detector, seconds


def refuse_if_none_usable(count: int, failures: Sequence[Failure]) -> None:
    if len(failures) == count:
        raise ImageError(failed(count, failures))


def save_report(
    folder: Path,
    title: str,
    detector: Detector,
    found: Evaluation,
    summary: dict[str, str],
    notes: tuple[str, ...],
    quiet: bool,
    *,
    pictures: Any = None,
) -> None:
    from fapm.reports.compose import compose

    config = detector.config
    facts = {
        **summary,
        "encoder": f"{config.encoder}, {config.input_size} px",
        "memory": f"{sum(len(b.keys) for b in detector.fitted_.banks):,} keys from "
        f"{console.pictures(len(detector.fitted_.pictures), 'good ')}, sampling {config.sampling}",
        **_inspected(detector),
        "false-positive rate": f"{100 * config.false_positive_rate:g} % asked for",
    }
    page = folder / REPORT
    write_report(
        page, compose(title, detector, found, summary=facts, notes=notes, pictures=pictures)
    )
    console.remark(quiet, f"report: {page}")


def _inspected(detector: Detector) -> dict[str, str]:
    roi = detector.fitted_.frame_roi
    return {} if roi is None else {"inspected": f"{100 * roi.mean():.1f} % of the frame"}
