"""The command line: fit, inspect, evaluate, info, doctor, demo."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fapm import bundle, demo, doctor, fitting, images, sinks
from fapm._version import __version__
from fapm.config import Config
from fapm.datasets import LAYOUTS, Sample, list_images, load_dataset
from fapm.detector import Detector
from fapm.errors import DatasetError, ImageError
from fapm.evaluation import Evaluation, evaluate, judge
from fapm.files import make_directory, replaced_when_complete
from fapm.options import config_options, one_line_errors
from fapm.prediction import Failure, Prediction
from fapm.reports.compose import compose
from fapm.reports.html import write_report

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

# Progress and remarks go to stderr: stdout is for results.
_console = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the command ``fapm``."""
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
def fit_command(
    good: Annotated[list[Path], typer.Argument(help="folders or pictures of good parts")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the bundle to write")],
    config: Config,
    max_pixels: MaxPixels = images.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Learn what good parts look like, and write a bundle."""
    if not output.parent.is_dir():
        raise DatasetError(f"--output {output}: no such directory: {output.parent}")
    pictures, message = fitting.training_pictures(good)
    _remark(quiet, message)
    detector, seconds = _fit(pictures, config, max_pixels, quiet)
    detector.save(output)
    _remark(quiet, f"{_fit_facts(detector, seconds)}, {_megabytes(output)}")
    print(output)


@app.command("inspect")
@one_line_errors
def inspect_command(
    source: Annotated[list[Path], typer.Argument(help="folders or pictures to inspect")],
    model: Model,
    jsonl: Annotated[str | None, typer.Option(help="JSON lines file, - for stdout")] = None,
    csv: Annotated[str | None, typer.Option(help="CSV file, - for stdout")] = None,
    overlays: Annotated[Path | None, typer.Option(help="folder for heatmap pictures")] = None,
    report: Report = None,
    fail_on_defect: Annotated[
        bool, typer.Option("--fail-on-defect", help="exit code 1 if there are defects")
    ] = False,
    max_pixels: MaxPixels = images.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Judge pictures with a bundle."""
    detector = Detector.load(model, max_pixels=max_pixels)
    paths = [path for item in source for path in list_images(item)]
    verdicts: Counter[str] = Counter()
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
            outputs.append(_print_result)
        advance = stack.enter_context(_progress(quiet))
        for done, result in enumerate(detector.stream(paths), start=1):
            verdicts["failed" if isinstance(result, Failure) else result.verdict] += 1
            for output in outputs:
                output(result)
            advance("inspect", done, len(paths))
    seconds = time.perf_counter() - started
    counts = ", ".join(f"{verdicts[v]} {v}" for v in ("good", "unsure", "defect", "failed"))
    _remark(quiet, f"{counts}; {len(paths) / seconds:.0f} pictures a second")
    if report is not None:
        samples = [Sample(path, None, None, "unknown") for path in paths]
        _write_report(
            report, f"Inspection with {model.name}", detector, judge(detector, samples, kept, None),
            {"bundle": str(model)}, (),
        )  # fmt: skip
    if verdicts["failed"] == len(paths):
        raise ImageError(f"none of {len(paths)} pictures could be inspected")
    if fail_on_defect and verdicts["defect"]:
        raise typer.Exit(1)


@app.command("evaluate")
@one_line_errors
@config_options
def evaluate_command(
    dataset: Annotated[Path, typer.Argument(help="folder or CSV file of a labelled data set")],
    config: Config,
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
    quiet = quiet or json_ == "-"
    data = load_dataset(dataset, layout, category)
    for line in (data.message, *data.warnings):
        _remark(quiet, line)
    if not data.test:
        raise DatasetError(
            f"{dataset}: no test pictures in this {data.layout} layout; to judge pictures without "
            "labels type: fapm inspect SOURCE --model BUNDLE"
        )
    fit_seconds = None
    if model is None:
        good = [sample.path for sample in data.train if sample.label != 1]
        if not good:
            raise DatasetError(f"{dataset}: no good training pictures; name a bundle with --model")
        detector, fit_seconds = _fit(good, config, max_pixels, quiet)
        bundle_bytes = _bundle_bytes(detector)
    else:
        detector = Detector.load(model, max_pixels=max_pixels)
        bundle_bytes = model.stat().st_size
    with _progress(quiet) as advance:
        found = evaluate(
            detector, data.test, progress=lambda done, total: advance("inspect", done, total)
        )
    figures = _figures(data.name, detector, found, fit_seconds, bundle_bytes)
    if report is not None:
        summary = {"data set": f"{data.name}: {data.message}"}
        _write_report(report, f"FAPM on {data.name}", detector, found, summary, data.warnings)
    _print_figures(figures, detector, found, json_, quiet)


@app.command("info")
@one_line_errors
def info_command(
    model: Annotated[Path, typer.Argument(help="a bundle written by fapm fit")],
    json_: Annotated[bool, typer.Option("--json", help="the whole manifest")] = False,
) -> None:
    """Say what a bundle holds."""
    manifest = bundle.describe(model)
    if json_:
        print(json.dumps(manifest, indent=2))
        return
    for name, value in _facts(model, manifest, Detector.load(model)):
        print(f"{name:<12}{value}")


def _facts(
    path: Path, manifest: Mapping[str, Any], detector: Detector
) -> Iterator[tuple[str, str]]:
    encoder, levels = manifest["encoder"], manifest["calibration"]
    yield "bundle", f"{path}, {_megabytes(path)}, fapm {manifest['versions']['fapm']}"
    yield "encoder", f"{encoder['name']}, layers {', '.join(encoder['layers'])}"
    yield "weights", f"sha256 {encoder['sha256']}"
    yield "frames", f"{encoder['input_size']} x {encoder['input_size']} pixels"
    for layer in manifest["layers"]:
        yield (
            "memory",
            f"{layer['keys']:,} keys of {layer['vectors']:,} vectors, "
            + (f"{layer['channels']} channels, {layer['height']} x {layer['width']} cells"),
        )
    yield "pictures", f"{len(manifest['pictures'])}, {len(manifest['skipped'])} left out"
    if levels["threshold"] is not None:
        yield "threshold", f"{levels['threshold']:.4g}"
        yield "unsure from", f"{levels['unsure_threshold']:.4g}"
    for name, value in manifest["config"].items():
        yield "config", f"{name} = {json.dumps(value)}"
    for note in detector.notes_:
        yield "note", note


@app.command("doctor")
@one_line_errors
def doctor_command() -> None:
    """Say what this machine offers."""
    for name, value in doctor.examine():
        print(f"{name:<12}{value}")


@app.command("demo")
@one_line_errors
@config_options
def demo_command(
    config: Config,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write into")] = Path(
        "demo"
    ),
    quiet: Quiet = False,
) -> None:
    """Find broken solar cells: fit, inspect and report on real pictures."""
    cells = demo.load_solar_cells(config.seed)
    make_directory(output)
    detector, seconds = _fit(cells.train, config, images.MAX_PIXELS, quiet)
    detector.save(output / "solar-cells.fapm")
    with _progress(quiet) as advance:
        found = evaluate(
            detector,
            cells.samples,
            pictures=cells.test,
            progress=lambda done, total: advance("inspect", done, total),
        )
    bundle_bytes = (output / "solar-cells.fapm").stat().st_size
    figures = _figures("solar cells", detector, found, seconds, bundle_bytes)
    summary = {"data set": "ELPV monocrystalline solar cells (CC BY-NC-SA 4.0)"}
    _write_report(output, "FAPM on solar cells", detector, found, summary, (), cells.test)
    _print_figures(figures, detector, found, None, quiet)
    kept = demo.first_defects(found.samples)
    part = judge(detector, [found.samples[i] for i in kept], [found.results[i] for i in kept], None)
    if part.image and part.counts:
        print(
            f"Of the {demo.FIRST_DEFECTS} defective cells that come first in the data set, which "
            f"have the coarser defects: image auroc {part.image.auroc:.4f}, caught "
            f"{part.counts.true_positives}."
        )


def _fit(pictures: Any, config: Config, max_pixels: int, quiet: bool) -> tuple[Detector, float]:
    detector = Detector(config, max_pixels=max_pixels)
    started = time.perf_counter()
    with _progress(quiet) as advance:
        detector.fit(pictures, progress=advance)
    seconds = time.perf_counter() - started
    for note in detector.notes_:
        _remark(quiet, f"note: {note}")
    return detector, seconds


def _figures(
    name: str, detector: Detector, found: Evaluation, fit_seconds: float | None, bundle_bytes: int
) -> dict[str, Any]:
    verdicts = Counter(r.verdict for r in found.results if isinstance(r, Prediction))
    counts = found.counts
    return {
        "dataset": name,
        **found.summary(),
        "threshold": sinks.finite(detector.threshold_),
        "caught": counts and counts.true_positives,
        "missed": counts and counts.false_negatives,
        "false_alarms": counts and counts.false_positives,
        "passed": counts and counts.true_negatives,
        "verdicts": {verdict: verdicts[verdict] for verdict in ("good", "unsure", "defect")},
        "failed": [{"source": f.source, "error": f.error} for f in found.failures],
        "fit_seconds": fit_seconds,
        "inspect_ms_median": found.inspect_ms_median,
        "keys": sum(len(bank.keys) for bank in detector.fitted_.banks),
        "bundle_bytes": bundle_bytes,
        "config": detector.config.model_dump(mode="json"),
    }


def _print_figures(
    figures: dict[str, Any],
    detector: Detector,
    found: Evaluation,
    json_target: str | None,
    quiet: bool,
) -> None:
    if json_target == "-":
        print(json.dumps(figures))
        return
    if json_target is not None:
        with replaced_when_complete(Path(json_target)) as file:
            file.write((json.dumps(figures, indent=2) + "\n").encode())
    for failure in found.failures:
        _remark(quiet, f"failed: {failure.error}")
    names = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "aupro")
    for name in names:
        value = figures[name]
        print(f"{name.replace('_', ' '):<14}{'-' if value is None else f'{value:.4f}'}")
    print(f"threshold     {detector.threshold_:.4g} "
          f"(false-positive rate {100 * detector.config.false_positive_rate:g} %)")  # fmt: skip
    if counts := found.counts:
        unsure = [s.label for s, r in zip(found.samples, found.results, strict=True)
                  if isinstance(r, Prediction) and r.verdict == "unsure"]  # fmt: skip
        print(f"caught        {counts.true_positives} of {counts.defects} defects, missed "
              f"{counts.false_negatives} (of them {unsure.count(1)} unsure)")  # fmt: skip
        print(f"false alarms  {counts.false_positives} of {counts.good} good parts "
              f"(and {unsure.count(0)} unsure)")  # fmt: skip
    if figures["fit_seconds"] is not None:
        print(f"fit           {_fit_facts(detector, figures['fit_seconds'])}")
    print(f"inspect       {figures['inspect_ms_median']:.1f} ms a picture, from file to verdict")


def _write_report(
    folder: Path,
    title: str,
    detector: Detector,
    found: Evaluation,
    summary: dict[str, str],
    notes: tuple[str, ...],
    pictures: Any = None,
) -> None:
    make_directory(folder)
    config = detector.config
    facts = {
        **summary,
        "encoder": f"{config.encoder}, {config.input_size} px",
        "memory": f"{sum(len(b.keys) for b in detector.fitted_.banks):,} keys from "
        f"{len(detector.fitted_.pictures)} good pictures, sampling {config.sampling}",
        "false-positive rate": f"{100 * config.false_positive_rate:g} % asked for",
    }
    page = folder / "report.html"
    write_report(
        page, compose(title, detector, found, summary=facts, notes=notes, pictures=pictures)
    )
    _console.print(f"report: {page}")


def _fit_facts(detector: Detector, seconds: float) -> str:
    fitted = detector.fitted_
    keys = sum(len(bank.keys) for bank in fitted.banks)
    return f"{len(fitted.pictures)} good pictures, {keys:,} keys, {seconds:.1f} s"


def _bundle_bytes(detector: Detector) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bundle.fapm")
        detector.save(path)
        return path.stat().st_size


def _print_result(result: Prediction | Failure) -> None:
    if isinstance(result, Failure):
        print(f"{'failed':<8}{'':>10}  {result.error}")
        return
    print(f"{result.verdict:<8}{result.score:>10.4g}  {result.source}")


def _remark(quiet: bool, line: str) -> None:
    if line and not quiet:
        _console.print(line, markup=False)


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage, on a terminal only."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=_console, transient=True, disable=quiet) as progress:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield advance
