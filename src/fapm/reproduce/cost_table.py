"""The cost model as a table: the cost of a search with each variant, before any fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fapm.config import Config
from fapm.encoder.freeze import feature_shapes
from fapm.encoder.weights import create_encoder
from fapm.errors import ConfigError
from fapm.reproduce.cost_model import VARIANTS, Cost, concatenated, expected_costs, total
from fapm.reproduce.output import Column, Document

COLUMNS = (
    Column("variant", "variant"),
    Column("what", "what"),
    Column("keys", "keys", digits=0),
    Column("megabytes", "MB of keys", digits=1),
    Column("distances", "distances", "a picture", digits=0),
    Column("million_operations", "million multiply-adds", "a picture", digits=1),
    Column("less_than_a", "A / this, multiply-adds", "a picture", digits=1),
)


def cost_table(config: Config, pictures: int) -> Document:
    """Compute keys, distances and operations of A to F for an encoder and a number of pictures.

    Only the shapes of its feature maps matter, so no trained weights are needed.

    Raises
    ------
    ConfigError
        ``pictures`` is not positive.
    EncoderError
        The encoder or a layer does not exist.
    """
    if pictures < 1:
        raise ConfigError(f"pictures: {pictures} is not at least 1")
    encoder = create_encoder(config.model_copy(update={"weights": "random"}))
    shapes = feature_shapes(encoder)
    rows: list[dict[str, Any]] = []
    for variant in VARIANTS:
        least, most = expected_costs(
            variant, shapes, pictures=pictures, grid=config.grid, ratio=config.ratio
        )
        row = figures(most, rows[0]["operations"] if rows else None)
        far = ", all patches far" if least != most else ""
        rows.append(
            {
                "variant": variant.name,
                "what": variant.what + far,
                **row,
                "least": figures(least, None),
                "layers": [asdict(cost) for cost in most],
            }
        )
    return Document(
        title="What a search costs",
        heading=f"A to F, {pictures} good pictures",
        facts={
            "encoder": f"{config.encoder}, {config.input_size} px",
            "layers": layer_names(encoder.spec.layers, shapes),
            "memory": f"{100 * config.ratio:g} % of all vectors, "
            f"{config.grid} x {config.grid} patches",
        },
        columns=COLUMNS,
        rows=rows,
        notes=_explained(shapes, rows, config.grid),
        data={
            "encoder": config.encoder,
            "shapes": [list(shape) for shape in shapes],
            "pictures": pictures,
            "grid": config.grid,
            "ratio": config.ratio,
            "rows": rows,
        },
    )


def figures(costs: Sequence[Cost], operations_of_a: int | None) -> dict[str, Any]:
    """Totals over the memory banks, as a row of the table."""
    cost = total(costs)
    return {
        **asdict(cost),
        "megabytes": cost.bytes / 1e6,
        "million_operations": cost.operations / 1e6,
        "less_than_a": (operations_of_a or cost.operations) / cost.operations,
    }


def layer_names(names: Sequence[str], shapes: Sequence[tuple[int, int, int]]) -> str:
    """``layer2 (512 channels, 28 x 28 cells), ...``."""
    described = [
        f"{name} ({channels} channels, {height} x {width} cells)"
        for name, (channels, height, width) in zip(names, shapes, strict=True)
    ]
    return ", ".join(described)


def _explained(
    shapes: Sequence[tuple[int, int, int]], rows: Sequence[dict[str, Any]], grid: int
) -> list[str]:
    """The paper's two sentences with the numbers filled in."""
    _, height, width = concatenated(shapes)
    cells, keys = height * width, rows[0]["keys"]
    notes = [
        f"Patch-wise: PatchCore compares N_V x N_t = {keys:,} x {cells:,} = "
        f"{rows[0]['distances']:,} pairs; with N_p = {grid * grid} patches it is "
        f"N_p (N_V / N_p) (N_t / N_p), counted here {rows[1]['distances']:,}."
    ]
    for channels, h, w in shapes:
        if (factor := cells // (h * w)) > 1:
            notes.append(
                f"Layer-wise: upsampled to {height} x {width} cells, the layer of {h} x {w} is "
                f"compared {factor} times as often as it has cells (the paper's factor 4), and as "
                f"the ratio counts upsampled cells too, its {channels} channels are in {factor} "
                f"times the keys: together {factor * factor} times the operations."
            )
    notes.append(
        "Multiply-adds of the search alone: the encoder, the same in every variant, is not in it."
    )
    if rows[4]["least"]["keys"] != rows[4]["keys"]:
        notes.append("Near-far (E) costs between D, where no patch is far, and the row above.")
    return notes
