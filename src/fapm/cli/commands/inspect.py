"""``fapm inspect``: judge pictures with a bundle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fapm.cli import console
from fapm.cli.ending import DEFECTS
from fapm.cli.options import one_line_errors, runtime_options
from fapm.cli.shared import (
    Ignore,
    MaxPixels,
    Model,
    Quiet,
    Report,
    Roi,
    dash_for_stdout,
    make_report_folder,
    refuse_unwritable_targets,
    save_report,
)
from fapm.datasets.folders import find_pictures, left_out
from fapm.datasets.loading import Sample
from fapm.engines.base import Runtime
from fapm.errors import ImageError, OutputError
from fapm.frames.preparation import Failure
from fapm.inspection.drift import DriftMonitor
from fapm.inspection.prediction import Prediction
from fapm.inspection.session import Session, Sink, Summary
from fapm.pictures import codec
from fapm.reports import sinks
from fapm.system.files import make_directory
from fapm.system.locks import sole_writer
from fapm.system.paths import is_file, same
from fapm.system.streams import print_text

if TYPE_CHECKING:
    from fapm.detector import Detector


@one_line_errors
@runtime_options
def inspect_command(
    source: Annotated[list[Path], typer.Argument(help="folders or pictures to inspect")],
    model: Model,
    runtime: Runtime,
    precision: Annotated[
        str, typer.Option(help="auto, or what the bundle must have been fitted with")
    ] = "auto",
    roi: Roi = None,
    ignore: Ignore = None,
    jsonl: Annotated[
        str | None, typer.Option(help="JSON lines file, - for stdout", callback=dash_for_stdout)
    ] = None,
    csv: Annotated[
        str | None, typer.Option(help="CSV file, - for stdout", callback=dash_for_stdout)
    ] = None,
    overlays: Annotated[Path | None, typer.Option(help="folder for heatmap pictures")] = None,
    report: Report = None,
    drift: Annotated[
        str | None,
        typer.Option(
            help="drift state as JSON (- for stdout); an existing file is continued",
            callback=dash_for_stdout,
        ),
    ] = None,
    fail_on_defect: Annotated[
        bool,
        typer.Option(
            "--fail-on-defect",
            help="exit code 1 if there are defects, else 2 if pictures could not be inspected",
        ),
    ] = False,
    max_pixels: MaxPixels = codec.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Judge pictures with a bundle."""
    found = [find_pictures(item) for item in source]
    paths = [path for each in found for path in each.pictures]
    _check_outputs(jsonl, csv, drift, overlays, report, paths)
    console.remark(quiet, left_out(found))
    from fapm.detector import Detector

    detector = Detector.load(model, precision=precision, runtime=runtime, max_pixels=max_pixels)
    detector = detector.restrict(roi, ignore)
    _ = detector.engine_  # a runtime that cannot be had is refused before the first picture
    lost: list[str] = []  # overlays
    kept: list[Prediction | Failure] = []  # for the report
    with _monitor(drift, detector, quiet) as monitor:
        with ExitStack() as stack:
            outputs = _open_files(stack, jsonl, csv)
            if overlays is not None:
                outputs.append(sinks.overlays(overlays, max_pixels, partial(_lose, lost)))
            if report is not None:
                outputs.append(kept.append)
            if not {jsonl, csv, drift} & {"-"}:
                outputs.append(console.print_result)
            session = Session(detector, outputs, monitor, console.warning)
            summary = session.run(paths, stack.enter_context(console.progress(quiet)))
        refused = _refused(summary, fail_on_defect)
        _tell(summary, quiet, failed=not refused)
    if report is not None:
        from fapm.measure.evaluate import judge

        samples = [Sample(path, None, (), "unknown") for path in paths]
        save_report(
            report, f"Inspection with {model.name}", detector, judge(detector, samples, kept, None),
            {"bundle": str(model)}, (), quiet,
        )  # fmt: skip
    if refused:
        raise ImageError(summary.failed)
    if fail_on_defect and summary.verdicts["defect"]:
        raise typer.Exit(DEFECTS)
    if lost:
        raise OutputError(f"{len(lost)} overlays could not be made; the first: {lost[0]}")


def _open_files(stack: ExitStack, jsonl: str | None, csv: str | None) -> list[Sink]:
    files = ((sinks.json_lines, jsonl), (sinks.csv_table, csv))
    return [stack.enter_context(kind(name)) for kind, name in files if name is not None]


def _lose(lost: list[str], reason: str) -> None:
    lost.append(reason)
    console.warning(f"no overlay: {reason}")


def _refused(found: Summary, fail_on_defect: bool) -> bool:
    """Whether failed pictures are an error: none is left, or no defect makes the exit code 1."""
    if len(found.failures) == found.pictures:
        return True
    return bool(found.failures) and fail_on_defect and not found.verdicts["defect"]


def _tell(found: Summary, quiet: bool, *, failed: bool) -> None:
    """The summary; ``failed``: also what failed, which an error else says at the end."""
    console.remark(quiet, str(found))
    if failed and found.failures:
        console.warning(found.failed)  # even if quiet: a batch is not all judged
    if found.stretched:
        console.remark(quiet, f"note: {found.stretched}")


@contextmanager
def _monitor(target: str | None, detector: Detector, quiet: bool) -> Iterator[DriftMonitor | None]:
    """A monitor, if anybody wants one: new, or as the file says; it is written at the end."""
    if target is None:
        yield None
        return
    baseline, path = detector.fitted_.baseline, Path(target)
    if target == "-":
        monitor = DriftMonitor(baseline)
        yield monitor
        console.remark(quiet, f"drift: {monitor.state}")
        print_text(monitor.to_json() + "\n")
        return
    with sole_writer(path, waiting=partial(console.remark, quiet)) as refuse_if_changed:
        known = is_file(path)
        monitor = DriftMonitor.resume(baseline, path) if known else DriftMonitor(baseline)
        yield monitor
        console.remark(quiet, f"drift: {monitor.state}")
        refuse_if_changed()
        monitor.save(path)


def _check_outputs(
    jsonl: str | None,
    csv: str | None,
    drift: str | None,
    overlays: Path | None,
    report: Path | None,
    paths: Sequence[Path],
) -> None:
    """Before the first picture: an hour's results must not be lost to a typing mistake."""
    targets = {"--jsonl": jsonl, "--csv": csv, "--drift": drift}
    for (one, here), (other, there) in itertools.combinations(targets.items(), 2):
        if here is not None and there is not None and (here == there or same(here, there)):
            raise OutputError(f"{one} and {other} both go to {here}; name another file for one")
    refuse_unwritable_targets(*targets.values())
    if overlays is not None:
        make_directory(overlays)
        if any(same(folder, overlays) for folder in {path.parent for path in paths}):
            raise OutputError(
                f"{overlays}: holds pictures to inspect, which overlays could replace; "
                "name another folder with --overlays"
            )
    make_report_folder(report)
