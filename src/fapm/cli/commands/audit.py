"""``fapm audit``: defects hidden among the good pictures."""

from __future__ import annotations

import csv as csv_module
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fapm.cli import console
from fapm.cli.options import config_options, one_line_errors, runtime_options
from fapm.cli.shared import (
    REPORT,
    Json,
    MaxPixels,
    Quiet,
    Report,
    dash_for_stdout,
    make_report_folder,
    refuse_unwritable_targets,
)
from fapm.config import Config
from fapm.engines.base import Runtime
from fapm.errors import OutputError
from fapm.pictures import codec
from fapm.system.imports import needed_for
from fapm.system.streams import print_line

if TYPE_CHECKING:
    from fapm.fitting.audit import Audit


@one_line_errors
@config_options
@runtime_options
def audit_command(
    good: Annotated[list[Path], typer.Argument(help="folders or pictures of good parts")],
    config: Config,
    runtime: Runtime,
    json_: Json = None,
    csv: Annotated[
        str | None, typer.Option(help="CSV file, - for stdout", callback=dash_for_stdout)
    ] = None,
    report: Report = None,
    top: Annotated[int, typer.Option(min=1, help="pictures to print and to show")] = 20,
    max_pixels: MaxPixels = codec.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Rank good pictures by how unlike the others they are: defects hide at the top."""
    from fapm.datasets.training import training_pictures

    refuse_unwritable_targets(json_, csv)
    if json_ == csv and json_ is not None:
        raise OutputError(f"--json and --csv both go to {json_}; name another file for one")
    make_report_folder(report)
    taken = training_pictures(good)
    for line in taken.lines:
        console.remark(quiet, line)
    with needed_for("audit", "fapm[fit]"):
        from fapm.fitting.audit import audit
    with console.progress(quiet) as advance:
        found = audit(taken.pictures, config, runtime, max_pixels=max_pixels, progress=advance)
    for failure in found.skipped:
        console.remark(quiet, f"left out: {failure.error}")
    rows = _rows(found)
    if not {json_, csv} & {"-"}:  # first: a full disk does not take these
        for row in rows[:top]:
            mark = "stands out" if row["stands_out"] else ""
            print_line(f"{row['rank']:>5}{row['score']:>9.4g}  {mark:<12}{row['picture']}")
    document = {"cut": found.found.cut, "pictures": rows}
    console.write_text(json_, json.dumps(document, indent=2) + "\n")
    console.write_text(csv, _table(rows))
    if report is not None:
        from fapm.reports.audit import write_audit

        page = report / REPORT
        write_audit(page, found, taken.pictures, max_pixels, top)
        console.remark(quiet, f"report: {page}")
    console.remark(
        quiet,
        f"{sum(row['stands_out'] for row in rows)} of {console.pictures(len(rows))} stand out "
        f"(score above {found.found.cut:.4g}); look at them, or fit with --robust",
    )


def _rows(found: Audit) -> list[dict[str, Any]]:
    scores, outlying = found.found.scores, found.found.outlying
    return [
        {
            "rank": rank,
            "picture": found.frames[number].name,
            "score": float(scores[number]),
            "stands_out": bool(outlying[number]),
        }
        for rank, number in enumerate(found.order.tolist(), start=1)
    ]


def _table(rows: list[dict[str, Any]]) -> str:
    table = io.StringIO()
    writer = csv_module.DictWriter(table, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()
