"""Table 1: every category of MVTec AD, beside the published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, harmonic_mean
from typing import Any

from fapm.config import Config
from fapm.reproduce import published
from fapm.reproduce.categories import Outcome
from fapm.reproduce.data_sets import scale_warning
from fapm.reproduce.output import Column, Document

_COLUMNS = {"paper": published.FAPM, "log": published.AUTHORS_LOG, "patchcore": published.PATCHCORE}
_LABELS = {"paper": "FAPM, paper", "log": "authors' log", "patchcore": "PatchCore, paper"}
_METRICS = {"image": "image AUROC", "pixel": "pixel AUROC"}
_MEASURED = ("image_auroc", "pixel_auroc", "aupro", "aupimo")
_SPEEDS = ("fps_device", "fps_wall")


def _columns() -> Sequence[Column]:
    columns = [Column("category", "category")]
    for metric, label in _METRICS.items():
        columns.append(Column(f"{metric}_percent", "here", label, digits=2))
        columns += [
            Column(
                f"{metric}_{name}", _LABELS[name], label,
                digits=2 if name == "log" else 1, beside=f"{metric}_{name}_difference",
            )
            for name in _COLUMNS
        ]  # fmt: skip
    return (
        *columns,
        Column("aupro_percent", "AUPRO", digits=2),
        Column("aupimo_percent", "AUPIMO", digits=2),
        Column("fps_device", "device", "FPS", digits=1),
        Column("fps_wall", "wall", "FPS", digits=1),
    )


def table1(
    outcomes: Sequence[Outcome], config: Config, facts: Mapping[str, str], data: Mapping[str, Any]
) -> Document:
    """Make the table: textures, objects, averages, and data sets that are not of MVTec AD."""
    by_name = {outcome.name: outcome for outcome in outcomes}
    ours = [_row(by_name[name]) for name in published.CATEGORIES if name in by_name]
    averages = [_average(group, names, by_name) for group, names in published.GROUPS.items()]
    extras = [_row(o) for o in outcomes if o.name not in published.CATEGORIES]
    missing = [name for name in published.CATEGORIES if name not in by_name]
    rows = [*ours, *averages, *extras]
    return Document(
        title="Table 1: detection and localisation on MVTec AD",
        heading="By category, in percent",
        facts=facts,
        columns=_columns(),
        rows=[_for_people(row) for row in rows],
        notes=_notes(missing, outcomes, config),
        data={**data, "rows": rows, "missing": missing},
    )


def _row(outcome: Outcome) -> dict[str, Any]:
    """Row of a category: its figures beside the published ones, or its error."""
    row: dict[str, Any] = {"category": outcome.name}
    if outcome.figures is None:
        return {**row, "error": outcome.error}
    row |= outcome.figures
    if outcome.name in published.CATEGORIES:
        row["published_percent"] = _published({metric: [outcome.name] for metric in _METRICS})
    return row


def _average(group: str, names: Sequence[str], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Means over the measured categories; published figures are averaged over the same ones."""
    rows = [_row(outcomes[name]) for name in names if name in outcomes]
    measured = {
        key: {row["category"]: row[key] for row in rows if row.get(key) is not None}
        for key in (*_MEASURED, *_SPEEDS)
    }
    averages: dict[str, float | None] = {}
    for key, values in measured.items():
        mean = harmonic_mean if key in _SPEEDS else fmean
        averages[key] = mean(list(values.values())) if values else None
    counts = {key: len(values) for key, values in measured.items()}
    label = f"{group}, {counts['image_auroc']} of {len(names)}"
    if counts["pixel_auroc"] != counts["image_auroc"]:
        label += f" (pixels {counts['pixel_auroc']})"
    over = {metric: list(measured[f"{metric}_auroc"]) for metric in _METRICS}
    return {
        "category": label, "group": group, **averages, "counts": counts,
        "published_percent": _published(over),
    }  # fmt: skip


def _published(categories: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float | None]]:
    """Mean of the published figures over the metric's categories, per column and metric."""
    return {
        name: {
            metric: getattr(published.average(column, names), metric) if names else None
            for metric, names in categories.items()
        }
        for name, column in _COLUMNS.items()
    }


def _for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert to percent, and add the difference to the published figure."""
    shown = dict(row, strong="group" in row)
    for key in _MEASURED:
        value = row.get(key)
        shown[f"{key.removesuffix('_auroc')}_percent"] = None if value is None else 100 * value
    for name, column in row.get("published_percent", {}).items():
        for metric, value in column.items():
            here = shown[f"{metric}_percent"]
            shown[f"{metric}_{name}"] = value
            if value is not None and here is not None:
                shown[f"{metric}_{name}_difference"] = here - value
    return shown


def _notes(missing: Sequence[str], outcomes: Sequence[Outcome], config: Config) -> list[str]:
    notes = scale_warning(config)
    if missing:
        notes.append(f"Not here: {', '.join(missing)}.")
    notes.append(
        "Published figures and, in brackets, how far those of this run are above them. Averages of "
        "published figures are over the categories measured here. Over all 15 the paper prints "
        + ", ".join(
            f"{name} {m.average.image} / {m.average.pixel}"
            for name, m in published.METHODS.items()
            if name in ("FAPM", "PatchCore")
        )
        + "."
    )
    if all(o.figures is None or o.figures["fps_device"] is None for o in outcomes):
        notes.append(
            "Speed is measured with --jobs 1 only: side by side, jobs take each other's time."
        )
    else:
        notes.append(
            "FPS, device: a frame through encoder, search, score and map. FPS, wall: from the "
            "file, with decoding and resizing. Medians, one picture at a time, on this machine. On "
            f"a Titan RTX the authors' code gives about {published.FPS_DEVICE:.0f} and "
            f"{published.FPS_WALL}; the latter is in their Table 1, with PatchCore at "
            f"{published.METHODS['PatchCore'].fps}."
        )
    for outcome in outcomes:
        if outcome.figures and outcome.figures["failed"]:
            count = len(outcome.figures["failed"])
            notes.append(
                f"{outcome.name}: {count} file{'s' * (count > 1)} could not be used; the first: "
                f"{outcome.figures['failed'][0]}"
            )
        notes += [f"{outcome.name}: {w}" for w in (outcome.figures or {}).get("warnings", ())]
    return notes
