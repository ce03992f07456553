"""The command line: fit, inspect, evaluate, info, export, benchmark, doctor, demo."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fapm import console, demo, images, sinks
from fapm._version import __version__
from fapm.config import Config
from fapm.datasets import LAYOUTS, Sample, list_images, load_dataset
from fapm.engines import Runtime
from fapm.errors import ConfigError, DatasetError, EngineError, ImageError, OutputError
from fapm.files import make_directory, refuse_unwritable, replaced_when_complete
from fapm.options import config_options, one_line_errors, runtime_options
from fapm.pipeline import Stages
from fapm.prediction import Failure, Prediction
from fapm.reports.html import write_report

# Commands import what needs torch themselves: help and mistakes in typing do not wait for it.
if TYPE_CHECKING:
    from fapm.detector import Detector
    from fapm.evaluation import Evaluation

app = typer.Typer(
    name="fapm",
    help="Find and localise defects, from pictures of good parts alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress, no remarks")]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="larger pictures are refused (decompression bombs)")
]
Model = Annotated[Path, typer.Option("--model", "-m", help="a bundle written by fapm fit")]
Report = Annotated[Path | None, typer.Option(help="folder for an HTML report")]


def main() -> None:
    """Entry point of the command ``fapm``."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        # A file name that the terminal's encoding lacks must not end a run.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    if version:
        print(f"fapm {__version__}")
        raise typer.Exit


@app.command("fit")
@one_line_errors
@config_options
@runtime_options
def fit_command(
    good: Annotated[list[Path], typer.Argument(help="folders or pictures of good parts")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the bundle to write")],
    config: Config,
    runtime: Runtime,
    max_pixels: MaxPixels = images.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Learn what good parts look like, and write a bundle."""
    from fapm.frames import training_pictures

    refuse_unwritable(output)
    pictures, message = training_pictures(good)
    console.remark(quiet, message)
    detector, seconds = _fit(pictures, config, runtime, max_pixels, quiet)
    detector.save(output)
    facts = f"{console.fit_facts(detector, seconds)}, {console.megabytes(output)}"
    console.remark(quiet, facts)
    print(output)


@app.command("inspect")
@one_line_errors
@runtime_options
def inspect_command(
    source: Annotated[list[Path], typer.Argument(help="folders or pictures to inspect")],
    model: Model,
    runtime: Runtime,
    precision: Annotated[
        str, typer.Option(help="auto, or what the bundle must have been fitted with")
    ] = "auto",
    jsonl: Annotated[str | None, typer.Option(help="JSON lines file, - for stdout")] = None,
    csv: Annotated[str | None, typer.Option(help="CSV file, - for stdout")] = None,
    overlays: Annotated[Path | None, typer.Option(help="folder for heatmap pictures")] = None,
    report: Report = None,
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
    paths = [path for item in source for path in list_images(item)]
    _check_inspect_outputs(jsonl, csv, overlays, report, paths)
    from fapm.detector import Detector

    detector = Detector.load(model, precision=precision, runtime=runtime, max_pixels=max_pixels)
    _ = detector.engine_  # a runtime that cannot be had is refused before the first picture
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
        if not {jsonl, csv} & {"-"}:
            outputs.append(console.print_result)
        advance = stack.enter_context(console.progress(quiet))
        for done, result in enumerate(detector.stream(paths, stages=stages), start=1):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                verdicts[result.verdict] += 1
            for output in outputs:
                output(result)
            advance("inspect", done, len(paths))
    seconds = time.perf_counter() - started
    counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in sinks.VERDICTS)
    rate = f"{len(paths) / seconds:.3g} pictures a second"
    bound = f"{rate}, bound by {stages.slowest(seconds)}"
    console.remark(quiet, f"{counts}, {len(failures)} failed; {bound}")
    if report is not None:
        from fapm.evaluation import judge

        samples = [Sample(path, None, None, "unknown") for path in paths]
        _write_report(
            report, f"Inspection with {model.name}", detector, judge(detector, samples, kept, None),
            {"bundle": str(model)}, (), quiet,
        )  # fmt: skip
    _refuse_if_none_usable(len(paths), failures)
    if fail_on_defect and verdicts["defect"]:
        raise typer.Exit(1)
    if fail_on_defect and failures:
        raise ImageError(
            f"{len(failures)} of {console.pictures(len(paths))} could not be inspected; "
            f"the first: {failures[0].error}"
        )


@app.command("evaluate")
@one_line_errors
@config_options
@runtime_options
def evaluate_command(
    dataset: Annotated[Path, typer.Argument(help="folder or CSV file of a labelled data set")],
    config: Config,
    runtime: Runtime,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="a bundle; default: fit on train/good")
    ] = None,
    layout: Annotated[str, typer.Option(help=" | ".join(LAYOUTS))] = "auto",
    category: Annotated[str | None, typer.Option(help="category within the data set")] = None,
    report: Report = None,
    json_: Annotated[
        str | None, typer.Option("--json", help="JSON file of all figures, - for stdout")
    ] = None,
    max_pixels: MaxPixels = images.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Fit on a data set's good pictures and judge its test pictures, with metrics."""
    if model is not None and config != Config.create():
        raise ConfigError("--model: a bundle brings its own settings; leave out all other knobs")
    data = load_dataset(dataset, layout, category)
    if not data.test:
        raise DatasetError(
            f"{dataset}: no test pictures in this {data.layout} layout; to judge pictures without "
            "labels type: fapm inspect SOURCE --model BUNDLE"
        )
    good = [sample.path for sample in data.train if sample.label != 1]
    if model is None and not good:
        raise DatasetError(f"{dataset}: no good training pictures; name a bundle with --model")
    if json_ not in (None, "-"):
        refuse_unwritable(Path(json_))
    if report is not None:
        make_directory(report)
    console.remark(quiet, data.message)
    for line in data.warnings:
        console.remark(quiet, f"warning: {line}")
    from fapm.detector import Detector
    from fapm.evaluation import evaluate

    fit_seconds = None
    if model is None:
        detector, fit_seconds = _fit(good, config, runtime, max_pixels, quiet)
        bundle_bytes = _bundle_bytes(detector)
    else:
        detector = Detector.load(model, runtime=runtime, max_pixels=max_pixels)
        bundle_bytes = model.stat().st_size
    with console.progress(quiet) as advance:
        found = evaluate(
            detector, data.test, progress=lambda done, total: advance("inspect", done, total)
        )
    figures = sinks.figures(data.name, detector, found, fit_seconds, bundle_bytes)
    if report is not None:
        summary = {"data set": f"{data.name}: {data.message}"}
        _write_report(
            report, f"FAPM on {data.name}", detector, found, summary, data.warnings, quiet
        )
    for failure in found.failures:
        console.remark(quiet, f"failed: {failure.error}")
    if json_ == "-":
        print(json.dumps(figures))
    else:
        if json_ is not None:
            with replaced_when_complete(Path(json_)) as file:
                file.write((json.dumps(figures, indent=2) + "\n").encode())
        console.print_figures(figures, detector, found)
    _refuse_if_none_usable(len(found.results), found.picture_failures)


@app.command("info")
@one_line_errors
def info_command(
    model: Annotated[Path, typer.Argument(help="a bundle written by fapm fit")],
    json_: Annotated[bool, typer.Option("--json", help="the whole manifest")] = False,
) -> None:
    """Say what a bundle holds."""
    from fapm import bundle
    from fapm.detector import Detector

    manifest = bundle.describe(model)
    if json_:
        print(json.dumps(manifest, indent=2))
        return
    console.print_facts(console.bundle_facts(model, manifest, Detector.load(model).notes_))


@app.command("export")
@one_line_errors
def export_command(
    model: Annotated[Path, typer.Argument(help="a bundle written by fapm fit")],
    folder: Annotated[Path, typer.Argument(help="folder to write into")],
    to: Annotated[str, typer.Option(help="onnx | openvino")] = "openvino",
) -> None:
    """Write the graph for other programs, and prove that it scores the same."""
    from fapm.detector import Detector
    from fapm.export import export, sample_frames

    detector = Detector.load(model)
    difference = export(detector, to, folder, sample_frames(detector))
    print(f"{folder}: largest score difference {difference:.1e}")


@app.command("benchmark")
@one_line_errors
@config_options
@runtime_options
def benchmark_command(
    config: Config,
    runtime: Runtime,
    source: Annotated[
        list[Path] | None, typer.Argument(help="good pictures; default: synthetic ones")
    ] = None,
    pictures: Annotated[int, typer.Option(help="how many synthetic pictures")] = 209,
    rounds: Annotated[int, typer.Option(help="turns that each stage gets")] = 20,
    json_: Annotated[
        str | None, typer.Option("--json", help="JSON file of all figures, - for stdout")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure how fast this machine is: encoder, whole graph, and PatchCore beside them."""
    try:
        from fapm import fitting  # noqa: F401
    except ImportError as error:
        raise EngineError(
            f"benchmark: {error.name} is not installed; type: pip install 'fapm[fit]'"
        ) from None
    from fapm.benchmark import benchmark, synthetic_pictures
    from fapm.frames import training_pictures

    if json_ not in (None, "-"):
        refuse_unwritable(Path(json_))
    given = training_pictures(source)[0] if source else synthetic_pictures(pictures, config.seed)
    if config.weights == "random":
        console.remark(quiet, "random weights: right for speed, meaningless for accuracy")
    with console.progress(quiet) as advance:
        figures = benchmark(given, config, runtime, rounds=rounds, progress=advance)
    console.print_or_write_json(figures, json_)


@app.command("doctor")
@one_line_errors
def doctor_command() -> None:
    """Say what this machine offers."""
    from fapm import doctor

    console.print_facts([*doctor.examine()])


@app.command("demo")
@one_line_errors
@config_options
@runtime_options
def demo_command(
    config: Config,
    runtime: Runtime,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write into")] = Path(
        "demo"
    ),
    quiet: Quiet = False,
) -> None:
    """Find broken solar cells: fit, inspect and report on real pictures."""
    from fapm.evaluation import evaluate, judge

    cells = demo.load_solar_cells(config.seed)
    make_directory(output)
    detector, seconds = _fit(cells.train, config, runtime, images.MAX_PIXELS, quiet)
    detector.save(output / "solar-cells.fapm")
    with console.progress(quiet) as advance:
        found = evaluate(
            detector,
            cells.samples,
            pictures=cells.test,
            progress=lambda done, total: advance("inspect", done, total),
        )
    bundle_bytes = (output / "solar-cells.fapm").stat().st_size
    figures = sinks.figures("solar cells", detector, found, seconds, bundle_bytes)
    summary = {"data set": "ELPV monocrystalline solar cells (CC BY-NC-SA 4.0)"}
    _write_report(
        output, "FAPM on solar cells", detector, found, summary, (), quiet, pictures=cells.test
    )
    console.print_figures(figures, detector, found)
    kept = demo.first_defects(found.samples)
    part = judge(detector, [found.samples[i] for i in kept], [found.results[i] for i in kept], None)
    if part.image and part.counts:
        print(
            f"Of the {demo.FIRST_DEFECTS} defective cells that come first in the data set, which "
            f"have the coarser defects: image auroc {part.image.auroc:.4f}, caught "
            f"{part.counts.true_positives}."
        )


def _fit(
    pictures: Any, config: Config, runtime: Runtime, max_pixels: int, quiet: bool
) -> tuple[Detector, float]:
    from fapm.detector import Detector

    detector = Detector(config, runtime=runtime, max_pixels=max_pixels)
    started = time.perf_counter()
    with console.progress(quiet) as advance:
        detector.fit(pictures, progress=advance, remark=partial(console.remark, quiet))
    seconds = time.perf_counter() - started
    for note in detector.notes_:
        console.remark(quiet, f"note: {note}")
    return detector, seconds


def _check_inspect_outputs(
    jsonl: str | None,
    csv: str | None,
    overlays: Path | None,
    report: Path | None,
    paths: Sequence[Path],
) -> None:
    """Before the first picture: an hour's results must not be lost to a typing mistake."""
    if jsonl == csv and jsonl is not None:
        raise OutputError(f"--jsonl and --csv both go to {jsonl}; name another file for one")
    for target in (jsonl, csv):
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


def _refuse_if_none_usable(count: int, failures: Sequence[Failure]) -> None:
    if len(failures) == count:
        raise ImageError(
            f"none of {console.pictures(count)} could be inspected; the first: {failures[0].error}"
        )


def _write_report(
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
        "false-positive rate": f"{100 * config.false_positive_rate:g} % asked for",
    }
    page = folder / "report.html"
    write_report(
        page, compose(title, detector, found, summary=facts, notes=notes, pictures=pictures)
    )
    console.remark(quiet, f"report: {page}")


def _bundle_bytes(detector: Detector) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bundle.fapm")
        detector.save(path)
        return path.stat().st_size
