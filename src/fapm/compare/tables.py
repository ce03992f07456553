"""Write rows as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from fapm.compare.running import Row, Task
from fapm.engines.opening import engine_name
from fapm.measure.timing import machine

_COLUMNS: dict[str, Callable[[Row], str]] = {
    "method": lambda row: row.method,
    "image AUROC": lambda row: _percent(row.image_auroc),
    "pixel AUROC": lambda row: _percent(row.pixel_auroc),
    "AUPRO": lambda row: _percent(row.aupro),
    "fit s": lambda row: _number(row.fit_seconds),
    "inspect ms": lambda row: _number(row.inspect_ms),
    "memory MB": lambda row: _number(row.memory_mb),
    "peak MB": lambda row: _number(row.peak_mb, 0),
    "note": lambda row: f"failed: {row.note}" if row.status == "failed" else row.note,
}


def markdown(rows: Sequence[Row]) -> str:
    """Markdown table with padded columns, legible as plain text. AUROC and AUPRO in percent."""
    cells = [list(_COLUMNS)]
    cells += [[show(row).replace("|", "/") for show in _COLUMNS.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_COLUMNS))]
    cells.insert(1, ["-" * width for width in widths])
    return "".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |\n"
        for line in cells
    )


def csv_text(rows: Sequence[Row]) -> str:
    """CSV with the fields of :class:`Row` as columns; a cell is empty if its value is unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    return text.getvalue()


def document(dataset: str, task: Task, rows: Sequence[Row]) -> dict[str, Any]:
    """Plain JSON of everything; null if a value is unknown."""
    config, runtime = task.setting.config, task.setting.runtime
    return {
        "dataset": dataset,
        "n_train": len(task.good),
        "n_test": len(task.test),
        "rows": [row._asdict() for row in rows],
        "config": config.model_dump(mode="json"),
        "engine": engine_name(runtime),
        "threads": runtime.threads,
        **machine(),
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
