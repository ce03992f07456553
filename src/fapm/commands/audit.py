"""``fapm audit``: defects hidden among the good pictures."""

from __future__ import annotations

import csv as csv_module
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fapm import console, images
from fapm.commands.shared import MaxPixels, Quiet, Report
from fapm.config import Config
from fapm.engines import Runtime
from fapm.errors import OutputError
from fapm.files import make_directory, refuse_unwritable, replaced_when_complete
from fapm.imports import needed_for
from fapm.options import config_options, one_line_errors, runtime_options

if TYPE_CHECKING:
    from fapm.audit import Audit


@one_line_errors
@config_options
@runtime_options
def audit_command(
    good: Annotated[list[Path], typer.Argument(help="folders or pictures of good parts")],
    config: Config,
    runtime: Runtime,
    json_: Annotated[str | None, typer.Option("--json", help="JSON file, - for stdout")] = None,
    csv: Annotated[str | None, typer.Option(help="CSV file, - for stdout")] = None,
    report: Report = None,
    top: Annotated[int, typer.Option(min=1, help="pictures to print and to show")] = 20,
    max_pixels: MaxPixels = images.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Rank good pictures by how unlike the others they are: defects hide at the top."""
    from fapm.frames import training_pictures

    for target in (json_, csv):
        if target not in (None, "-"):
            refuse_unwritable(Path(target))
    if json_ == csv and json_ is not None:
        raise OutputError(f"--json and --csv both go to {json_}; name another file for one")
    if report is not None:
        make_directory(report)
    pictures, message = training_pictures(good)
    console.remark(quiet, message)
    with needed_for("audit", "fapm[fit]"):
        from fapm.audit import audit
    with console.progress(quiet) as advance:
        found = audit(pictures, config, runtime, max_pixels=max_pixels, progress=advance)
    for failure in found.skipped:
        console.remark(quiet, f"left out: {failure.error}")
    rows = _rows(found)
    if json_ is not None:
        _write(json_, json.dumps({"cut": found.found.cut, "pictures": rows}, indent=2) + "\n")
    if csv is not None:
        table = io.StringIO()
        writer = csv_module.DictWriter(table, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        _write(csv, table.getvalue())
    if report is not None:
        from fapm.reports.audit import write_audit

        page = report / "report.html"
        write_audit(page, found, pictures, max_pixels, top)
        console.remark(quiet, f"report: {page}")
    if not {json_, csv} & {"-"}:
        for row in rows[:top]:
            mark = "stands out" if row["stands_out"] else ""
            print(f"{row['rank']:>5}{row['score']:>9.4g}  {mark:<12}{row['picture']}")
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


def _write(target: str, text: str) -> None:
    if target == "-":
        print(text, end="")
        return
    with replaced_when_complete(Path(target)) as file:
        file.write(text.encode("utf-8", errors="surrogateescape"))
