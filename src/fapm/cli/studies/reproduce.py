"""``fapm reproduce``: the paper's tables and figures, on whatever data sets are there."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fapm.cli import console
from fapm.cli.options import one_line_errors, runtime_options, some_config_options
from fapm.cli.panels import GroupedCommand
from fapm.cli.shared import Json, Quiet, refuse_unwritable_targets
from fapm.cli.studies.reproduce_figures import figures_command
from fapm.config import Config
from fapm.engines.base import Runtime
from fapm.errors import DatasetError, EncoderError
from fapm.frames.preparation import require_command
from fapm.system.files import make_directory
from fapm.system.imports import needed_for
from fapm.system.streams import print_text

if TYPE_CHECKING:
    from fapm.reproduce.output import Document

app = typer.Typer(
    help="The paper's tables and figures, made again.", no_args_is_help=True, rich_markup_mode=None
)

Root = Annotated[
    Path, typer.Argument(help="MVTec AD: a folder of data sets with train/good, or one of them")
]

# Table 2 turns these parts of the method on and off itself.
_ABLATED = ("layer_wise", "sampling")


@one_line_errors
@some_config_options(tuple(Config.model_fields), preset="paper")
@runtime_options
def table1_command(
    data_root: Root,
    config: Config,
    runtime: Runtime,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="folder of the table and of what is done")
    ] = Path("table1"),
    jobs: Annotated[int, typer.Option(min=1, help="categories at a time; FPS only with 1")] = 1,
    json_: Json = None,
    quiet: Quiet = False,
) -> None:
    """Table 1: all categories, beside what was published. Run again, it goes on where it ended."""
    require_command(config, "reproduce")
    refuse_unwritable_targets(json_)
    _require_fit()
    from fapm.reproduce.categories import Job, measure_all
    from fapm.reproduce.data_sets import find_data_sets
    from fapm.reproduce.output import write
    from fapm.reproduce.table1 import table1

    data_sets = find_data_sets(data_root)
    _refuse_missing_weights(config)
    make_directory(output)
    todo = [Job(name, path, config, runtime, jobs == 1) for name, path in data_sets.items()]
    outcomes = []
    with console.progress(quiet) as advance:
        for outcome in measure_all(
            todo, output / "categories", processes=jobs, progress=advance,
            remark=partial(console.remark, quiet),
        ):  # fmt: skip
            outcomes.append(outcome)
            console.remark(quiet, f"{len(outcomes)} of {len(todo)}: {outcome}")
    _refuse_if_all_failed({o.name: o.error for o in outcomes if o.error}, len(todo))
    document = table1(outcomes, config, *_facts(config, runtime, config.sampling))
    write(output, "table1", document)
    _show(document, json_)
    console.remark(quiet, f"table: {output / 'table1.html'}")


@one_line_errors
@some_config_options(
    [name for name in Config.model_fields if name not in _ABLATED], budget_pictures=None
)
@runtime_options
def table2_command(
    data_root: Root,
    config: Config,
    runtime: Runtime,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="folder to write the table into")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="turns of four that each variant gets")] = 20,
    json_: Json = None,
    quiet: Quiet = False,
) -> None:
    """Table 2: PatchCore-10 % (A) to FAPM (E) and equal-radius (F), in one run.

    The single memory of A is chosen greedily from all vectors, which takes minutes. All pictures
    count for the ratio unless --budget-pictures says otherwise.
    """
    require_command(config, "reproduce")
    refuse_unwritable_targets(json_)
    _require_fit()
    from fapm.errors import FapmError
    from fapm.reproduce.data_sets import find_data_sets
    from fapm.reproduce.output import write
    from fapm.reproduce.table2 import ablate, table2

    data_sets = find_data_sets(data_root)
    _refuse_missing_weights(config)
    if output is not None:
        make_directory(output)
    measured, failed = [], {}
    for name, folder in data_sets.items():
        with console.progress(quiet) as advance:
            try:
                rows = ablate(
                    name, folder, config, runtime, rounds=rounds, progress=advance,
                    remark=partial(console.remark, quiet),
                )  # fmt: skip
            except FapmError as error:
                console.remark(quiet, f"{name}: {error}")
                failed[name] = str(error)
            else:
                measured.append(rows)
    _refuse_if_all_failed(failed, len(data_sets))
    document = table2(measured, failed, config, *_facts(config, runtime, "by variant"))
    if output is not None:
        write(output, "table2", document)
    _show(document, json_)


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
    refuse_unwritable_targets(json_)
    _require_fit()
    from fapm.reproduce.cost_table import cost_table

    _show(cost_table(config, pictures), json_)


def _require_fit() -> None:
    with needed_for("reproduce", "fapm[fit]"):
        from fapm.fitting import fit as fitting  # noqa: F401


def _refuse_missing_weights(config: Config) -> None:
    """Now, in one line, and not once per data set."""
    from fapm.encoder.weights import create_encoder

    try:
        create_encoder(config)
    except EncoderError as error:
        if config.weights is not None:
            raise
        raise EncoderError(f"{error}, or with all its own settings: --preset fast") from None


def _refuse_if_all_failed(errors: dict[str, str], count: int) -> None:
    if len(errors) == count:
        first = next(iter(errors.values()))
        raise DatasetError(f"none of {count} data sets could be measured; the first: {first}")


def _facts(
    config: Config, runtime: Runtime, sampling: str
) -> tuple[dict[str, str], dict[str, Any]]:
    """What figures belong to, for people and as plain JSON."""
    from fapm.engines.opening import engine_name
    from fapm.measure.timing import machine

    here, engine = machine(), engine_name(runtime)
    size = f"{config.resize} px"
    if config.crop is not None:
        size = f"{config.resize} -> crop {config.crop} px"
    if config.weights == "random":
        size += ", random weights: meaningless for accuracy"
    facts = {
        "encoder": f"{config.encoder}, {size}",
        "memory": f"{100 * config.ratio:g} %, sampling {sampling}, b = {config.neighbours}, "
        f"unit {config.distance_unit}",
        "engine": f"{engine} {here['versions'].get(engine, '')}, {config.precision}",
        "machine": here["machine"],
        "date": here["date"],
    }
    return facts, {"config": config.model_dump(mode="json"), "engine": engine, **here}


def _show(document: Document, json_: str | None) -> None:
    """As JSON to stdout for ``-``; else as Markdown, and as JSON to the file if there is one."""
    from fapm.reproduce import output

    if json_ != "-":
        print_text(output.as_markdown(document))
    console.write_text(json_, output.as_json(document))


app.command("table1", cls=GroupedCommand)(table1_command)
app.command("table2", cls=GroupedCommand)(table2_command)
app.command("cost", cls=GroupedCommand)(cost_command)
app.command("figures", cls=GroupedCommand)(figures_command)
