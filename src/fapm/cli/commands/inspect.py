"""``fapm inspect``: judge pictures with a bundle."""

from __future__ import annotations

import itertools
import time
from collections import Counter
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
    refuse_if_none_usable,
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
from fapm.inspection.stream import Stages
from fapm.pictures import codec
from fapm.progress import Progress
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
    verdicts: Counter[str] = Counter()
    failures: list[Failure] = []
    lost: list[str] = []  # overlays
    kept: list[Prediction | Failure] = []

    def lose(reason: str) -> None:
        lost.append(reason)
        console.warning(f"no overlay: {reason}")

    with _monitor(drift, detector, quiet) as monitor:
        with ExitStack() as stack:
            outputs: list[sinks.Sink] = []
            if jsonl is not None:
                outputs.append(stack.enter_context(sinks.json_lines(jsonl)))
            if csv is not None:
                outputs.append(stack.enter_context(sinks.csv_table(csv)))
            if overlays is not None:
                outputs.append(sinks.overlays(overlays, max_pixels, lose))
            if report is not None:
                outputs.append(kept.append)
            if not {jsonl, csv, drift} & {"-"}:
                outputs.append(console.print_result)
            advance = stack.enter_context(console.progress(quiet))
            rate = _judge(detector, paths, monitor, outputs, verdicts, failures, advance)
        counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in sinks.VERDICTS)
        console.remark(quiet, f"{counts}, {len(failures)} failed; {rate}")
    if report is not None:
        from fapm.measure.evaluate import judge

        samples = [Sample(path, None, (), "unknown") for path in paths]
        save_report(
            report, f"Inspection with {model.name}", detector, judge(detector, samples, kept, None),
            {"bundle": str(model)}, (), quiet,
        )  # fmt: skip
    refuse_if_none_usable(len(paths), failures)
    if fail_on_defect and verdicts["defect"]:
        raise typer.Exit(DEFECTS)
    if fail_on_defect and failures:
        raise ImageError(
            f"{len(failures)} of {console.pictures(len(paths))} could not be inspected; "
            f"the first: {failures[0].error}"
        )
    if lost:
        raise OutputError(f"{len(lost)} overlays could not be made; the first: {lost[0]}")


def _judge(
    detector: Detector,
    paths: Sequence[Path],
    monitor: DriftMonitor | None,
    outputs: Sequence[sinks.Sink],
    verdicts: Counter[str],
    failures: list[Failure],
    advance: Progress,
) -> str:
    """Judge all pictures, hand each result on at once, and say how fast it was."""
    warned, stages, started = None, Stages(), time.perf_counter()
    results = detector.stream(paths, stages=stages, drift=monitor)
    for done, result in enumerate(results, start=1):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            verdicts[result.verdict] += 1
        for output in outputs:
            output(result)
        if monitor is not None and monitor.state.since != warned:
            warned = monitor.state.since
            if warned is not None:
                console.warning(f"drift: {monitor.state}")
        advance("inspect", done, len(paths))
    seconds = time.perf_counter() - started
    return f"{len(paths) / seconds:.3g} pictures a second, bound by {stages.slowest(seconds)}"


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
