"""The command line: one command per module of :mod:`fapm.cli.commands`."""

from __future__ import annotations

import functools
import sys
from typing import Annotated, NoReturn

import typer

from fapm._version import __version__
from fapm.cli import ending
from fapm.cli.panels import FitCommand, GroupedCommand
from fapm.errors import EngineError
from fapm.system import streams
from fapm.system.imports import import_problem


def main() -> NoReturn:
    """Entry point of the command ``fapm``."""
    ending.run(_app)


def _app() -> typer.Typer:
    """All commands. Imported here: a library that cannot be loaded is said in one line, too.

    Only ``doctor`` starts whatever is broken, and says what it is.
    """
    app = typer.Typer(
        name="fapm",
        help="Find and localise defects, from pictures of good parts alone.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(_version)
    try:
        _add_commands(app)
    except Exception as error:  # broken libraries raise nearly anything
        problem = import_problem(error)
        if problem is None:
            raise
        if sys.argv[1:2] != ["doctor"]:
            raise EngineError(f"{problem}; fapm doctor says more") from error
    from fapm.cli.commands import doctor

    app.command("doctor")(doctor.doctor_command)
    return app


def _add_commands(app: typer.Typer) -> None:
    """All commands but ``doctor``."""
    from fapm.cli.commands import audit, evaluate, export, fit, info, inspect, update
    from fapm.cli.studies import benchmark, compare, demo, reproduce

    app.command("fit", cls=FitCommand)(fit.fit_command)
    add = functools.partial(app.command, cls=GroupedCommand)
    add("inspect")(inspect.inspect_command)
    add("evaluate")(evaluate.evaluate_command)
    add("audit")(audit.audit_command)
    add("update")(update.update_command)
    add("forget")(update.forget_command)
    add("info")(info.info_command)
    add("export")(export.export_command)
    add("benchmark")(benchmark.benchmark_command)
    add("compare")(compare.compare_command)
    add("demo")(demo.demo_command)
    app.add_typer(reproduce.app, name="reproduce")


def _version(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    if version:
        streams.print_line(f"fapm {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    main()
