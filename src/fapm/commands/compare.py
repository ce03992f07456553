"""``fapm compare``: other methods beside FAPM, on the same pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fapm import console, images
from fapm.commands.shared import Json, MaxPixels, Quiet, refuse_unwritable_targets
from fapm.compare import running, tables
from fapm.compare.methods import DEFAULT, KNOWN, parse_methods
from fapm.compare.setting import Setting
from fapm.config import Config
from fapm.datasets import LAYOUTS, load_dataset
from fapm.engines import Runtime, installed
from fapm.errors import ConfigError, DatasetError, EngineError, ImageError
from fapm.layout import require_plain
from fapm.options import config_options, one_line_errors, runtime_options
from fapm.pipeline import ordered_map
from fapm.streams import print_text


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
    max_pixels: MaxPixels = images.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Fit FAPM and other methods on a data set's good pictures and judge its test pictures.

    All see the same frames through the same encoder, and are measured alike.
    """
    names = parse_methods(methods)
    require_plain(config, "compare")
    if config.align != "none":
        raise ConfigError("align: every method gets the same frames; leave it out")
    if config.light != "none":
        raise ConfigError("light: every method gets the same frames; leave it out")
    for package in ("torch", "timm"):
        if not installed(package):
            raise EngineError(f"compare: {package} is not installed; type: pip install 'fapm[fit]'")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"timeout: {timeout:g} is not above 0 seconds")
    data = load_dataset(dataset, layout, category)
    good = tuple(sample.path for sample in data.train if sample.label != 1)
    if not good:
        raise DatasetError(f"{dataset}: no good training pictures to fit on")
    if not data.test:
        raise DatasetError(f"{dataset}: no test pictures in this {data.layout} layout to judge")
    refuse_unwritable_targets(json_, csv, markdown)
    console.remark(quiet, data.message)
    for line in data.warnings:
        console.remark(quiet, f"warning: {line}")
    readable = _readable([*good, *(sample.path for sample in data.test)], config, max_pixels, quiet)
    good = tuple(path for path in good if path in readable)
    test = tuple(sample for sample in data.test if sample.path in readable)
    for what, pictures in (("training", good), ("test", test)):
        if not pictures:
            raise ImageError(f"{dataset}: none of the {what} pictures can be read")
    task = running.Task(Setting(config, runtime, max_pixels), good, test)
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


def _readable(paths: list[Path], config: Config, max_pixels: int, quiet: bool) -> set[Path]:
    """The pictures that can be read: all methods get the same."""

    def fault(path: Path) -> str:
        try:
            images.read_reduced(path, config.resize, max_pixels)
        except ImageError as error:
            return str(error)
        return ""

    faults = dict(zip(paths, ordered_map(fault, paths), strict=True))
    for error in faults.values():
        console.remark(quiet, error and f"left out: {error}")
    return {path for path, error in faults.items() if not error}
