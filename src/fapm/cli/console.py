"""Output of the command line: results on stdout, progress and remarks on stderr.

A result or a remark is one line, whatever characters are in the names of files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fapm.frames.preparation import Failure
from fapm.inspection.prediction import Prediction
from fapm.system import streams
from fapm.system.files import replaced_when_complete
from fapm.system.streams import plain, print_line, print_text

if TYPE_CHECKING:
    from fapm.detector import Detector
    from fapm.measure.evaluate import Evaluation

_stderr = Console(
    file=cast(IO[str], streams.StandardError()), highlight=False, emoji=False, soft_wrap=True
)

_METRICS = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "aupro",
            "aupimo")  # fmt: skip


def remark(quiet: bool, line: str) -> None:
    """A line for people, unless there is nothing to say or nobody wants to hear it."""
    if line and not quiet:
        _stderr.print(plain(line), markup=False)


def warning(line: str) -> None:
    """A line that must not be missed, quiet or not."""
    _stderr.print(plain(f"warning: {line}"), markup=False)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage, on a terminal only, whatever FORCE_COLOR says."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(
        *columns,
        console=_stderr,
        transient=True,
        disable=quiet or not (_stderr.is_terminal and _stderr.file.isatty()),
        # Elsewhere results would follow the bar to standard error.
        redirect_stdout=streams.on_one_terminal(),
    ) as bars:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield advance


def print_result(result: Prediction | Failure) -> None:
    """Verdict, score and picture."""
    if isinstance(result, Failure):
        print_line(f"{'failed':<8}{'':>10}  {result.error}")
        return
    reason = f" ({result.reason})" if result.reason else ""
    print_line(f"{result.verdict:<8}{result.score:>10.4g}  {result.source}{reason}")


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and values, a line each."""
    lines = list(facts)
    width = max(len(name) for name, _ in lines) + 2
    for name, value in lines:
        print_line(f"{name:<{width}}{value}")


def print_figures(figures: Mapping[str, Any], detector: Detector, found: Evaluation) -> None:
    """Print the figures of an evaluation as a table."""
    facts = [(name.replace("_", " "), _four_digits(figures[name])) for name in _METRICS]
    facts.append(("threshold", _threshold(detector)))
    if counts := found.counts:
        unsure = [s.label for s, r in zip(found.samples, found.results, strict=True)
                  if isinstance(r, Prediction) and r.verdict == "unsure"]  # fmt: skip
        facts += [
            ("caught", f"{counts.true_positives} of {counts.defects} defects, missed "
                       f"{counts.false_negatives} (of them {unsure.count(1)} unsure)"),
            ("false alarms", f"{counts.false_positives} of {counts.good} good parts "
                             f"(and {unsure.count(0)} unsure)"),
        ]  # fmt: skip
    if figures["fit_seconds"] is not None:
        facts.append(("fit", fit_facts(detector, figures["fit_seconds"])))
    if found.inspect_ms_median is not None:
        milliseconds = f"{found.inspect_ms_median:.1f} ms a picture, from file to verdict"
        facts.append(("inspect", milliseconds))
    print_facts(facts)


def print_or_write_json(figures: Mapping[str, Any], target: str | None) -> None:
    """Figures as JSON to stdout for ``-``; else a table, and JSON to the file if there is one."""
    if target != "-":
        print_facts(
            (name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
            for name, value in figures.items()
        )
    write_text(target, json.dumps(figures, indent=2) + "\n")


def write_text(target: str | None, text: str) -> None:
    """``text`` to stdout for ``-``, else into a file, if there is one.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    if target == "-":
        print_text(text)
    elif target is not None:
        with replaced_when_complete(Path(target)) as file:
            file.write(text.encode("utf-8", errors="surrogateescape"))


def print_path(path: Path) -> None:
    """Print the path of a result; if that is stdout, the line would become a part of it."""
    if not streams.is_stdout(path):
        print_line(str(path))


def bundle_facts(
    path: Path, manifest: Mapping[str, Any], notes: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Facts about a bundle, by their names."""
    encoder, levels = manifest["encoder"], manifest["calibration"]
    yield "bundle", f"{path}, {megabytes(path)}, fapm {manifest['versions']['fapm']}"
    layers = ", ".join(encoder["layers"])
    yield "encoder", f"{encoder['name']} in {encoder['precision']}, layers {layers}"
    yield "weights", f"sha256 {encoder['sha256']}"
    height, width = encoder["input_size"]
    tiles = "tiles of " if manifest["config"]["tile"] else ""
    of = ""
    if size := manifest["picture_size"]:
        of = f", of pictures of {size[1]} x {size[0]}"
    yield "frames", f"{tiles}{width} x {height} pixels{of}"
    if roi := manifest["roi"]:
        yield "inspected", f"{100 * roi['share']:.1f} % of the frame"
    for layer in manifest["layers"]:
        yield (
            "memory",
            f"{layer['keys']:,} keys of {layer['vectors']:,} vectors, "
            f"{layer['channels']} channels, {layer['height']} x {layer['width']} cells",
        )
    yield "pictures", f"{len(manifest['pictures'])}, {len(manifest['skipped'])} left out"
    for change in manifest["history"]:
        names = ", ".join(change["pictures"][:3]) + ", ..." * (len(change["pictures"]) > 3)
        keys = " -> ".join(f"{count:,}" for count in change["keys"])
        when = f" ({change['when']})" if change["when"] else ""
        yield change["action"], f"{names}: keys {keys}{when}"
    if levels["threshold"] is not None:
        yield "threshold", f"{levels['threshold']:.4g}"
        yield "unsure from", f"{levels['unsure_threshold']:.4g}"
    for name, value in manifest["config"].items():
        yield "config", f"{name} = {json.dumps(value)}"
    for note in notes:
        yield "note", note


def fit_facts(detector: Detector, seconds: float) -> str:
    """The cost and the result of a fit, in one line."""
    fitted = detector.fitted_
    keys = sum(len(bank.keys) for bank in fitted.banks)
    return f"{pictures(len(fitted.pictures), 'good ')}, {keys:,} keys, {seconds:.1f} s"


def pictures(count: int, kind: str = "") -> str:
    """``1 picture``, ``2 good pictures``."""
    return f"{count} {kind}picture{'' if count == 1 else 's'}"


def megabytes(path: Path) -> str:
    """Size of a file."""
    return f"{path.stat().st_size / 1e6:.1f} MB"


def _four_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _threshold(detector: Detector) -> str:
    if len(detector.fitted_.pictures) == 1:
        return "- (one good picture gives none)"
    rate = 100 * detector.config.false_positive_rate
    return f"{detector.threshold_:.4g} (false-positive rate {rate:g} %)"
