"""``fapm fit``: learn what good parts look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fapm.cli import console
from fapm.cli.options import config_options, one_line_errors, runtime_options
from fapm.cli.shared import FitRoi, Ignore, MaxPixels, Quiet, fit_detector
from fapm.config import Config
from fapm.engines.base import Runtime
from fapm.pictures import codec
from fapm.system.files import refuse_unwritable


@one_line_errors
@config_options
@runtime_options
def fit_command(
    good: Annotated[list[Path], typer.Argument(help="folders or pictures of good parts")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the bundle to write")],
    config: Config,
    runtime: Runtime,
    roi: FitRoi = None,
    ignore: Ignore = None,
    max_pixels: MaxPixels = codec.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Learn what good parts look like, and write a bundle."""
    refuse_unwritable(output)
    detector, seconds = fit_detector(
        good, config, runtime, max_pixels, quiet, roi=roi, ignore=ignore
    )
    detector.save(output)
    facts = f"{console.fit_facts(detector, seconds)}, {console.megabytes(output)}"
    console.remark(quiet, facts)
    console.print_path(output)
