"""``fapm inspect``: judge pictures with a bundle."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fapm import console, images, sinks
from fapm.commands.shared import (
    Ignore,
    MaxPixels,
    Model,
    Quiet,
    Report,
    Roi,
    refuse_if_none_usable,
    save_report,
)
from fapm.datasets import Sample
from fapm.drift import DriftMonitor
from fapm.engines import Runtime
from fapm.errors import ImageError, OutputError
from fapm.files import make_directory, refuse_unwritable
from fapm.folders import find_pictures, left_out
from fapm.options import one_line_errors, runtime_options
from fapm.pipeline import Stages
from fapm.prediction import Failure, Prediction

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
    jsonl: Annotated[str | None, typer.Option(help="JSON lines file, - for stdout")] = None,
    csv: Annotated[str | None, typer.Option(help="CSV file, - for stdout")] = None,
    overlays: Annotated[Path | None, typer.Option(help="folder for heatmap pictures")] = None,
    report: Report = None,
    drift: Annotated[
        str | None,
        typer.Option(
            help="JSON file of what drifted, - for stdout; a file that is there is continued"
        ),
    ] = None,
    fail_on_defect: Annotated[
        bool,
        typer.Option(
            "--fail-on-defect",
            help="exit code 1 if there are defects, else 2 if pictures could not be inspected",
        ),
    ] = False,
    max_pixels: MaxPixels = images.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Judge pictures with a bundle."""
    found = [find_pictures(item) for item in source]
    paths = [path for each in found for path in each.pictures]
    _check_inspect_outputs(jsonl, csv, drift, overlays, report, paths)
    console.remark(quiet, left_out(found))
    from fapm.detector import Detector

    detector = Detector.load(model, precision=precision, runtime=runtime, max_pixels=max_pixels)
    detector = detector.restrict(roi, ignore)
    _ = detector.engine_  # a runtime that cannot be had is refused before the first picture
    monitor = _monitor(drift, detector)
    warned = None
    verdicts: Counter[str] = Counter()
    failures: list[Failure] = []
    stages = Stages()
    kept: list[Prediction | Failure] = []
    started = time.perf_counter()
    with ExitStack() as stack:
        outputs: list[sinks.Sink] = []
        if jsonl is not None:
            outputs.append(stack.enter_context(sinks.json_lines(jsonl)))
        if csv is not None:
            outputs.append(stack.enter_context(sinks.csv_table(csv)))
        if overlays is not None:
            outputs.append(stack.enter_context(sinks.overlays(overlays, max_pixels)))
        if report is not None:
            outputs.append(kept.append)
        if not {jsonl, csv, drift} & {"-"}:
            outputs.append(console.print_result)
        advance = stack.enter_context(console.progress(quiet))
        for done, result in enumerate(
            detector.stream(paths, stages=stages, drift=monitor), start=1
        ):
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
    counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in sinks.VERDICTS)
    rate = f"{len(paths) / seconds:.3g} pictures a second"
    bound = f"{rate}, bound by {stages.slowest(seconds)}"
    console.remark(quiet, f"{counts}, {len(failures)} failed; {bound}")
    if monitor is not None:
        console.remark(quiet, f"drift: {monitor.state}")
        if drift == "-":
            print(monitor.to_json())
        elif drift is not None:
            monitor.save(Path(drift))
    if report is not None:
        from fapm.evaluation import judge

        samples = [Sample(path, None, (), "unknown") for path in paths]
        save_report(
            report, f"Inspection with {model.name}", detector, judge(detector, samples, kept, None),
            {"bundle": str(model)}, (), quiet,
        )  # fmt: skip
    refuse_if_none_usable(len(paths), failures)
    if fail_on_defect and verdicts["defect"]:
        raise typer.Exit(1)
    if fail_on_defect and failures:
        raise ImageError(
            f"{len(failures)} of {console.pictures(len(paths))} could not be inspected; "
            f"the first: {failures[0].error}"
        )


def _monitor(target: str | None, detector: Detector) -> DriftMonitor | None:
    """What watches for drift: a new monitor, or the one whose state is in the file."""
    if target is None:
        return None
    baseline = detector.fitted_.baseline
    if target == "-" or not Path(target).exists():
        return DriftMonitor(baseline)
    return DriftMonitor.resume(baseline, Path(target))


def _check_inspect_outputs(
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
        if here == there and here is not None:
            raise OutputError(f"{one} and {other} both go to {here}; name another file for one")
    for target in targets.values():
        if target not in (None, "-"):
            refuse_unwritable(Path(target))
    if overlays is not None:
        make_directory(overlays)
        if any(path.parent.samefile(overlays) for path in paths):
            raise OutputError(
                f"{overlays}: holds pictures to inspect, which overlays could replace; "
                "name another folder with --overlays"
            )
    if report is not None:
        make_directory(report)
