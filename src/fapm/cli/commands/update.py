"""``fapm update`` and ``fapm forget``: a bundle learns, or unlearns, on the line."""

from __future__ import annotations

import shlex
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
from fapm.errors import OutputError
from fapm.pictures import codec
from fapm.plain import first_few
from fapm.system.files import before_name, keep_before, refuse_unwritable
from fapm.system.locks import sole_writer
from fapm.system.paths import followed, is_file, same
from fapm.system.streams import is_stdout

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
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="learn even if half of them or more look like another product"
        ),
    ] = False,
    max_pixels: MaxPixels = codec.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Learn more good parts, without the old pictures."""
    from fapm.datasets.training import training_pictures

    _refuse_output(model, output or model)
    taken = training_pictures(good)
    for line in taken.lines:
        console.remark(quiet, line)

    def learn(detector: Detector) -> None:
        before = detector.fitted_
        with console.progress(quiet) as advance:
            detector.update(taken, when=when, force=force, progress=advance)
        after = detector.fitted_
        for failure in after.skipped[len(before.skipped) :]:
            console.remark(quiet, f"note: left out: {failure.error}")
        for line in after.remarks[len(before.remarks) :]:
            if (note := line.removeprefix("update: ")) not in taken.lines:  # said before the work
                console.remark(quiet, f"note: {note}")

    target = output or model
    change = _change(model, target, learn, quiet, runtime=runtime, max_pixels=max_pixels)
    back = (
        "" if is_stdout(target) else f"; fapm forget {shlex.quote(str(target))} NAME takes one back"
    )
    console.remark(quiet, f"update: learnt {first_few(change.pictures)}{back}")


@one_line_errors
def forget_command(
    model: _Bundle,
    picture: Annotated[str, typer.Argument(help="its name, as fapm info --json lists it")],
    output: _Output = None,
    when: _When = None,
    quiet: Quiet = False,
) -> None:
    """Remove what one picture taught."""
    _refuse_output(model, output or model)
    _change(model, output or model, lambda d: d.forget(picture, when=when), quiet)


def _refuse_output(model: Path, output: Path) -> None:
    """Before the work: what cannot be written, and what keeping the file before would replace."""
    refuse_unwritable(output)
    if not is_file(output) or is_stdout(output):
        return
    kept = before_name(output)
    refuse_unwritable(kept)
    if kept == followed(output) or (same(model, kept) and not same(model, output)):
        raise OutputError(
            f"{output}: the file that is there would be kept as {kept}, which would replace the "
            "bundle that is read; name another file with --output"
        )


def _change(
    model: Path, output: Path, change: Callable[[Detector], object], quiet: bool, **options: Any
) -> Change:
    """Read a bundle, change it and write it: what others write meanwhile is not lost.

    The file that is replaced is kept beside the new one.
    """
    from fapm.detector import Detector

    waiting = partial(console.remark, quiet)
    in_place = output == model or same(model, output)
    with sole_writer(output, read=in_place, waiting=waiting) as refuse_if_changed:
        detector = Detector.load(model, **options)
        started = time.perf_counter()
        change(detector)
        seconds = time.perf_counter() - started
        refuse_if_changed()
        kept = keep_before(output)
        detector.save(output)
    made = detector.fitted_.history[-1]
    _tell(made, seconds, quiet)
    if kept is not None:
        console.remark(quiet, f"{made.action}: the bundle before is kept as {kept}")
    console.print_path(output)
    return made


def _tell(change: Change, seconds: float, quiet: bool) -> None:
    for line in change.warnings:
        console.warning(line)  # even if quiet: it may be a mistake
    before, after = (f"{level:.4g}" if level is not None else "-" for level in change.threshold)
    console.remark(
        quiet,
        f"{change.action}: {console.pictures(len(change.pictures))}, keys {change.keys[0]:,} -> "
        f"{change.keys[1]:,}, threshold {before} -> {after}, {seconds:.1f} s",
    )
