"""``fapm reproduce``: the paper's tables and figures, on whatever data sets are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fapm.config import Config
from fapm.files import refuse_unwritable, replaced_when_complete
from fapm.options import one_line_errors, some_config_options

if TYPE_CHECKING:
    from fapm.reproduce.output import Document

app = typer.Typer(
    help="The paper's tables and figures, made again.", no_args_is_help=True, rich_markup_mode=None
)

Json = Annotated[str | None, typer.Option("--json", help="JSON file of all figures, - for stdout")]


@one_line_errors
@some_config_options(
    ("encoder", "weights", "layers", "resize", "crop", "grid", "ratio", "seed"), preset="paper"
)
def cost_command(
    config: Config,
    pictures: Annotated[int, typer.Option(help="how many good pictures are memorised")] = 209,
    json_: Json = None,
) -> None:
    """Count what a search costs, per variant of Table 2, from shapes alone."""
    from fapm.reproduce import cost_table

    _refuse_unwritable(json_)
    _show(cost_table.cost_table(config, pictures), json_)


def _refuse_unwritable(json_: str | None) -> None:
    if json_ not in (None, "-"):
        refuse_unwritable(Path(json_))


def _show(document: Document, json_: str | None) -> None:
    """As JSON to stdout for ``-``; else as Markdown, and as JSON to the file if there is one."""
    from fapm.reproduce import output

    if json_ == "-":
        print(output.as_json(document), end="")
        return
    if json_ is not None:
        with replaced_when_complete(Path(json_)) as file:
            file.write(output.as_json(document).encode())
    print(output.as_markdown(document), end="")


app.command("cost")(cost_command)
