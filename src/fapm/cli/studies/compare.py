"""``fapm compare``: other methods beside FAPM, on the same pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fapm.cli import console
from fapm.cli.options import config_options, one_line_errors, runtime_options
from fapm.cli.shared import Json, MaxPixels, Quiet, refuse_unwritable_targets
from fapm.compare import running, tables
from fapm.compare.registry import DEFAULT, KNOWN, parse_methods
from fapm.compare.setting import Setting
from fapm.config import Config
from fapm.datasets.loading import LAYOUTS, Sample, load_dataset
from fapm.engines.base import Runtime
from fapm.engines.opening import installed
from fapm.errors import ConfigError, DatasetError, EngineError, ImageError
from fapm.pictures import codec
from fapm.system.parallel import ordered_map
from fapm.system.streams import print_text


@one_line_errors
@config_options
@runtime_options
def compare_command(
    dataset: Annotated[Path, typer.Argument(help="folder or CSV file of a labelled data set")],
    config: Config,
    runtime: Runtime,
    methods: Annotated[str, typer.Option(help=f"by comma, among {', '.join(KNOWN)}")] = ",".join(
        DEFAULT
    ),
    layout: Annotated[str, typer.Option(help=" | ".join(LAYOUTS))] = "auto",
    category: Annotated[str | None, typer.Option(help="category within the data set")] = None,
    timeout: Annotated[
        float | None, typer.Option(help="seconds that each method has; default: no limit")
    ] = None,
    json_: Json = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="CSV file, a line a method")] = None,
    markdown: Annotated[Path | None, typer.Option(help="the table as a Markdown file")] = None,
    max_pixels: MaxPixels = codec.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Fit FAPM and other methods on a data set's good pictures and judge its test pictures.

    All see the same frames through the same encoder, and are measured alike.
    """
    names = parse_methods(methods)
    _refuse_missing_packages()
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"timeout: {timeout:g} is not above 0 seconds")
    data = load_dataset(dataset, layout, category)
    good = data.good
    if not good:
        raise DatasetError(f"{dataset}: no good training pictures to fit on")
    if not data.test:
        raise DatasetError(f"{dataset}: no test pictures in this {data.layout} layout to judge")
    refuse_unwritable_targets(json_, csv, markdown)
    console.remark(quiet, data.message)
    for line in data.warnings:
        console.remark(quiet, f"warning: {line}")
    task = _task(dataset, good, data.test, Setting(config, runtime, max_pixels), quiet)
    rows = []
    with console.progress(quiet) as advance:
        for row in running.compare(names, task, timeout=timeout):
            rows.append(row)
            advance("compare", len(rows), len(names))
    figures = json.dumps(tables.document(data.name, task, rows), indent=2) + "\n"
    table = tables.markdown(rows)
    print_text(figures if json_ == "-" else table)
    if json_ != "-":
        console.write_text(json_, figures)
    for target, text in ((csv, tables.csv_text(rows)), (markdown, table)):
        console.write_text(None if target is None else str(target), text)


def _refuse_missing_packages() -> None:
    for package in ("torch", "timm"):
        if not installed(package):
            raise EngineError(f"compare: {package} is not installed; type: pip install 'fapm[fit]'")


def _task(
    dataset: Path, good: Sequence[Path], test: Sequence[Sample], setting: Setting, quiet: bool
) -> running.Task:
    """What every method gets: those pictures that can be read."""
    readable = _readable([*good, *(sample.path for sample in test)], setting, quiet)
    task = running.Task(
        setting,
        tuple(path for path in good if path in readable),
        tuple(sample for sample in test if sample.path in readable),
    )
    for what, pictures in (("training", task.good), ("test", task.test)):
        if not pictures:
            raise ImageError(f"{dataset}: none of the {what} pictures can be read")
    return task


def _readable(paths: Sequence[Path], setting: Setting, quiet: bool) -> set[Path]:
    """The pictures that can be read: all methods get the same."""

    def fault(path: Path) -> str:
        try:
            codec.read_reduced(path, setting.config.resize, setting.max_pixels)
        except ImageError as error:
            return str(error)
        return ""

    faults = dict(zip(paths, ordered_map(fault, paths), strict=True))
    for error in faults.values():
        console.remark(quiet, error and f"left out: {error}")
    return {path for path, error in faults.items() if not error}
