"""``fapm update`` and ``fapm forget``: a bundle learns, or unlearns, on the line."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fapm.bundle.fitted import Change
from fapm.cli import console
from fapm.cli.options import one_line_errors, runtime_options
from fapm.cli.shared import MaxPixels, Quiet
from fapm.engines.base import Runtime
from fapm.pictures import codec
from fapm.system.files import refuse_unwritable
from fapm.system.locks import sole_writer
from fapm.system.paths import same

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
    max_pixels: MaxPixels = codec.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Learn more good parts, without the old pictures."""
    from fapm.datasets.training import training_pictures

    refuse_unwritable(output or model)
    taken = training_pictures(good)
    for line in taken.lines:
        console.remark(quiet, line)

    def learn(detector: Detector) -> None:
        skipped = len(detector.fitted_.skipped)
        with console.progress(quiet) as advance:
            detector.update(taken, when=when, progress=advance)
        for failure in detector.fitted_.skipped[skipped:]:
            console.remark(quiet, f"note: left out: {failure.error}")

    _change(model, output or model, learn, quiet, runtime=runtime, max_pixels=max_pixels)


@one_line_errors
def forget_command(
    model: _Bundle,
    picture: Annotated[str, typer.Argument(help="its name, as fapm info --json lists it")],
    output: _Output = None,
    when: _When = None,
    quiet: Quiet = False,
) -> None:
    """Remove what one picture taught."""
    refuse_unwritable(output or model)
    _change(model, output or model, lambda d: d.forget(picture, when=when), quiet)


def _change(
    model: Path, output: Path, change: Callable[[Detector], object], quiet: bool, **options: Any
) -> None:
    """Read a bundle, change it and write it: what others write meanwhile is not lost."""
    from fapm.detector import Detector

    waiting = partial(console.remark, quiet)
    in_place = output == model or same(model, output)
    with sole_writer(output, read=in_place, waiting=waiting) as refuse_if_changed:
        detector = Detector.load(model, **options)
        started = time.perf_counter()
        change(detector)
        seconds = time.perf_counter() - started
        refuse_if_changed()
        detector.save(output)
    _tell(detector.fitted_.history[-1], seconds, quiet)
    console.print_path(output)


def _tell(change: Change, seconds: float, quiet: bool) -> None:
    for line in change.warnings:
        console.warning(line)  # even if quiet: it may be a mistake
    before, after = (f"{level:.4g}" if level is not None else "-" for level in change.threshold)
    console.remark(
        quiet,
        f"{change.action}: {console.pictures(len(change.pictures))}, keys {change.keys[0]:,} -> "
        f"{change.keys[1]:,}, threshold {before} -> {after}, {seconds:.1f} s",
    )
