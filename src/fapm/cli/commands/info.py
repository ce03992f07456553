"""``fapm info``: say what a bundle holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fapm.cli import console
from fapm.cli.options import one_line_errors
from fapm.system.streams import print_text


@one_line_errors
def info_command(
    model: Annotated[Path, typer.Argument(help="a bundle written by fapm fit")],
    json_: Annotated[bool, typer.Option("--json", help="the whole manifest")] = False,
) -> None:
    """Say what a bundle holds."""
    from fapm.bundle import file as bundle
    from fapm.detector import Detector

    manifest = bundle.describe(model)
    if json_:
        print_text(json.dumps(manifest, indent=2) + "\n")
        return
    console.print_facts(console.bundle_facts(model, manifest, Detector.load(model).notes_))
