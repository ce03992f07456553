"""``fapm reproduce``: the paper's tables and figures, on whatever data sets are there."""

from __future__ import annotations

import typer

from fapm.commands.reproduce_figures import figures_command

app = typer.Typer(
    help="The paper's tables and figures, made again.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _group() -> None:
    """Without it typer takes a single command for the whole group."""


app.command("figures")(figures_command)
