"""The command line: one command per module of :mod:`fapm.commands`."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from fapm._version import __version__
from fapm.commands import doctor
from fapm.imports import import_problem

app = typer.Typer(
    name="fapm",
    help="Find and localise defects, from pictures of good parts alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _add_commands() -> str | None:
    """All but ``doctor``, which says what is wrong where a library that all need is broken.

    Returns
    -------
    what is wrong, in one line.
    """
    try:
        from fapm.commands import (
            audit,
            benchmark,
            compare,
            demo,
            evaluate,
            export,
            fit,
            info,
            inspect,
            reproduce,
            update,
        )
    except Exception as error:  # broken libraries raise nearly anything
        problem = import_problem(error)
        if problem is None:
            raise
        return problem
    app.command("fit")(fit.fit_command)
    app.command("inspect")(inspect.inspect_command)
    app.command("evaluate")(evaluate.evaluate_command)
    app.command("audit")(audit.audit_command)
    app.command("update")(update.update_command)
    app.command("forget")(update.forget_command)
    app.command("info")(info.info_command)
    app.command("export")(export.export_command)
    app.command("benchmark")(benchmark.benchmark_command)
    app.command("compare")(compare.compare_command)
    app.command("demo")(demo.demo_command)
    app.add_typer(reproduce.app, name="reproduce")
    return None


_broken = _add_commands()
app.command("doctor")(doctor.doctor_command)


def main() -> None:
    """Entry point of the command ``fapm``."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        # A file name that the terminal's encoding lacks must not end a run.
        sys.stdout.reconfigure(errors="backslashreplace")
    if _broken is not None and sys.argv[1:2] != ["doctor"]:
        print(f"fapm: {_broken}; fapm doctor says more", file=sys.stderr)
        sys.exit(2)
    app()


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    if version:
        print(f"fapm {__version__}")
        raise typer.Exit
