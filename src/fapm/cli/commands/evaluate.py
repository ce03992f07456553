"""``fapm evaluate``: fit on a labelled data set and judge its test pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fapm.bundle import file as bundle
from fapm.cli import console
from fapm.cli.options import config_options, one_line_errors, runtime_options
from fapm.cli.shared import (
    FitRoi,
    Ignore,
    Json,
    MaxPixels,
    Quiet,
    Report,
    fit_detector,
    make_report_folder,
    refuse_if_none_usable,
    refuse_unwritable_targets,
    save_report,
)
from fapm.config import Config
from fapm.datasets.loading import LAYOUTS, load_dataset
from fapm.engines.base import Runtime
from fapm.errors import ConfigError, DatasetError
from fapm.pictures import codec
from fapm.reports import sinks
from fapm.system.streams import print_text


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
    roi: FitRoi = None,
    ignore: Ignore = None,
    report: Report = None,
    json_: Json = None,
    max_pixels: MaxPixels = codec.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Fit on a data set's good pictures and judge its test pictures, with metrics."""
    if model is not None and config != Config.create():
        raise ConfigError("--model: a bundle brings its own settings; leave out all other knobs")
    if model is not None and roi == "auto":
        raise ConfigError("--roi auto: is learned at fit; leave out --model, or name a file")
    data = load_dataset(dataset, layout, category)
    if not data.test:
        raise DatasetError(
            f"{dataset}: no test pictures in this {data.layout} layout; to judge pictures without "
            "labels type: fapm inspect SOURCE --model BUNDLE"
        )
    if model is None and not data.good:
        raise DatasetError(f"{dataset}: no good training pictures; name a bundle with --model")
    refuse_unwritable_targets(json_)
    make_report_folder(report)
    console.remark(quiet, data.message)
    for line in data.warnings:
        console.remark(quiet, f"warning: {line}")
    from fapm.datasets.training import good_pictures
    from fapm.detector import Detector
    from fapm.measure.evaluate import evaluate

    fit_seconds = None
    if model is None:
        detector, fit_seconds = fit_detector(
            good_pictures(data), config, runtime, max_pixels, quiet, roi=roi, ignore=ignore
        )
        bundle_bytes = bundle.size(detector.fitted_)
    else:
        detector = Detector.load(model, runtime=runtime, max_pixels=max_pixels)
        detector = detector.restrict(roi, ignore)
        bundle_bytes = model.stat().st_size
    with console.progress(quiet) as advance:
        found = evaluate(
            detector, data.test, progress=lambda done, total: advance("inspect", done, total)
        )
    figures = sinks.figures(data.name, detector, found, fit_seconds, bundle_bytes)
    for line in found.warnings:
        console.remark(quiet, f"warning: {line}")
    for failure in found.failures:
        console.remark(quiet, f"failed: {failure.error}")
    if json_ == "-":
        print_text(json.dumps(figures) + "\n")
    else:  # the table first: a full disk does not take it
        console.print_figures(figures, detector, found)
        console.write_text(json_, json.dumps(figures, indent=2) + "\n")
    if report is not None:
        summary = {"data set": f"{data.name}: {data.message}"}
        notes = (*data.warnings, *found.warnings)
        save_report(report, f"FAPM on {data.name}", detector, found, summary, notes, quiet)
    refuse_if_none_usable(len(found.results), found.picture_failures)
