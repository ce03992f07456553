"""``fapm update`` and ``fapm forget``: a bundle learns, or unlearns, on the line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fapm import console, images
from fapm.commands.shared import MaxPixels, Quiet
from fapm.engines import Runtime
from fapm.files import refuse_unwritable
from fapm.options import one_line_errors, runtime_options

if TYPE_CHECKING:
    from fapm.detector import Detector

_Bundle = Annotated[Path, typer.Argument(help="a bundle written by fapm fit")]
_Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="the bundle to write; default: the same file")
]
_When = Annotated[str | None, typer.Option(help="kept in the bundle's history, e.g. a date")]


@one_line_errors
@runtime_options
def update_command(
    model: _Bundle,
    good: Annotated[list[Path], typer.Argument(help="folders or pictures of more good parts")],
    runtime: Runtime,
    output: _Output = None,
    when: _When = None,
    max_pixels: MaxPixels = images.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Learn more good parts, without the old pictures."""
    from fapm.detector import Detector
    from fapm.training import training_pictures

    refuse_unwritable(output or model)
    taken = training_pictures(good)
    for line in taken.lines:
        console.remark(quiet, line)
    detector = Detector.load(model, runtime=runtime, max_pixels=max_pixels)
    skipped = len(detector.fitted_.skipped)
    started = time.perf_counter()
    with console.progress(quiet) as advance:
        detector.update(taken, when=when, progress=advance)
    for failure in detector.fitted_.skipped[skipped:]:
        console.remark(quiet, f"note: left out: {failure.error}")
    _finish(detector, output or model, time.perf_counter() - started, quiet)


@one_line_errors
def forget_command(
    model: _Bundle,
    picture: Annotated[str, typer.Argument(help="its name, as fapm info --json lists it")],
    output: _Output = None,
    when: _When = None,
    quiet: Quiet = False,
) -> None:
    """Remove what one picture taught."""
    from fapm.detector import Detector

    refuse_unwritable(output or model)
    detector = Detector.load(model)
    started = time.perf_counter()
    detector.forget(picture, when=when)
    _finish(detector, output or model, time.perf_counter() - started, quiet)


def _finish(detector: Detector, output: Path, seconds: float, quiet: bool) -> None:
    change = detector.fitted_.history[-1]
    for warning in change.warnings:
        console.remark(False, f"warning: {warning}")  # even if quiet: it may be a mistake
    detector.save(output)
    before, after = (f"{level:.4g}" if level is not None else "-" for level in change.threshold)
    console.remark(
        quiet,
        f"{change.action}: {console.pictures(len(change.pictures))}, keys {change.keys[0]:,} -> "
        f"{change.keys[1]:,}, threshold {before} -> {after}, {seconds:.1f} s",
    )
    print(output)
