"""``fapm benchmark``: how fast this machine is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fapm.cli import console
from fapm.cli.options import config_options, one_line_errors, runtime_options
from fapm.cli.shared import Json, Quiet, refuse_unwritable_targets
from fapm.config import Config
from fapm.engines.base import Runtime
from fapm.system.imports import needed_for


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
    json_: Json = None,
    quiet: Quiet = False,
) -> None:
    """Measure how fast this machine is: encoder, whole graph, and PatchCore beside them."""
    with needed_for("benchmark", "fapm[fit]"):
        from fapm.fitting import fit as fitting  # noqa: F401
    from fapm.datasets.training import training_pictures
    from fapm.measure.benchmark import benchmark, synthetic_pictures

    refuse_unwritable_targets(json_)
    made = () if source else synthetic_pictures(pictures, config.seed)
    given = training_pictures(source).pictures if source else made
    if config.weights == "random":
        console.remark(quiet, "random weights: right for speed, meaningless for accuracy")
    with console.progress(quiet) as advance:
        figures = benchmark(given, config, runtime, rounds=rounds, progress=advance)
    console.print_or_write_json(figures, json_)
