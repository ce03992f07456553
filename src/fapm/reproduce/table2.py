"""Table 2: the effect of each part of the method on accuracy and speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import Any

from fapm.config import Config
from fapm.datasets.loading import Dataset
from fapm.detector import Detector
from fapm.engines.base import Runtime
from fapm.errors import DatasetError, FapmError
from fapm.measure.evaluate import evaluate
from fapm.measure.timing import Stage, take_turns
from fapm.progress import Progress
from fapm.reproduce import published
from fapm.reproduce.cost_model import VARIANTS, Variant, fitted_costs, total
from fapm.reproduce.data_sets import encoder_stage, load_labelled, scale_warning, speed_stages
from fapm.reproduce.output import Column, Document

COLUMNS = (
    Column("data_set", "data set"),
    Column("variant", "variant"),
    Column("what", "what"),
    Column("image_percent", "image", "AUROC", digits=2),
    Column("pixel_percent", "pixel", "AUROC", digits=2),
    Column("fps", "wall", "FPS", digits=1),
    Column("fps_device", "device", "FPS", digits=1),
    Column("search_ms", "search ms", "measured", digits=2),
    Column("keys", "keys", "counted", digits=0),
    Column("megabytes", "MB of keys", "counted", digits=1),
    Column("distances", "distances", "counted", digits=0),
    Column("million_operations", "million multiply-adds", "counted", digits=1),
    Column("published_image", "image", "published", digits=1),
    Column("published_pixel", "pixel", "published", digits=1),
    Column("published_fps", "FPS", "published", digits=1),
)
_ACCURACY = ("image_auroc", "pixel_auroc", "aupro", "aupimo")
_COUNTS = ("keys", "distances", "operations", "bytes", "fit_seconds")
_TIMES = ("search_ms", "device_ms", "wall_ms", "encoder_ms")
_SPEEDS = ("fps", "fps_device")


def variant_config(variant: Variant, config: Config) -> Config:
    """Change only the parts of the method in ``config`` to those of a variant."""
    return config.model_copy(
        update={
            "grid": variant.grid(config.grid),
            "layer_wise": variant.layer_wise,
            "sampling": variant.sampling,
            # With one patch there are no neighbours.
            "radius": config.radius if variant.patch_wise else 0,
        }
    )


def ablate(
    name: str,
    folder: Path,
    config: Config,
    runtime: Runtime,
    *,
    rounds: int,
    progress: Progress = lambda stage, done, total: None,
    remark: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Fit and judge every variant on one data set, then time them in turns.

    Returns
    -------
    a row of plain JSON per variant; one that cannot be fitted has ``error`` in place of figures.

    Raises
    ------
    DatasetError
        The data set cannot be used, or no variant could be fitted on it.
    """
    data = load_labelled(folder)
    files = [sample.path for sample in data.test]
    rows: list[dict[str, Any]] = []
    stages: dict[str, dict[str, Stage]] = {}
    encoder: Stage | None = None
    for variant in VARIANTS:
        row: dict[str, Any] = {"data_set": name, "variant": variant.name, "what": variant.what}
        rows.append(row)
        detector = Detector(variant_config(variant, config), runtime=runtime)
        try:
            row |= _judge(detector, data, progress, partial(_remark, remark, name, variant))
            stages[variant.name] = speed_stages(detector, files)
        except FapmError as error:
            row["error"] = str(error)
            continue
        _remark(remark, name, variant, f"fitted in {row['fit_seconds']:.1f} s")
        encoder = encoder or encoder_stage(detector, files)
    if encoder is None:
        raise DatasetError(rows[0]["error"])
    timed = [stage for both in stages.values() for stage in both.values()]
    take_turns([*timed, encoder], rounds, progress)
    for row in rows:
        if both := stages.get(row["variant"]):
            row |= {
                "device_ms": both["device"].median,
                "wall_ms": both["wall"].median,
                "encoder_ms": encoder.median,
                "search_ms": both["device"].median - encoder.median,
                "fps_device": 1000 / both["device"].median,
                "fps": 1000 / both["wall"].median,
            }
    return rows


def table2(
    measured: Sequence[Sequence[Mapping[str, Any]]],
    failed: Mapping[str, str],
    config: Config,
    facts: Mapping[str, str],
    data: Mapping[str, Any],
) -> Document:
    """Make the table of the rows of one or several data sets, with their means.

    Parameters
    ----------
    measured
        result of :func:`ablate` for each data set.
    failed
        reason for which others could not be used, by name.
    """
    means = _means(measured) if len(measured) > 1 else list(measured[0])
    shown = [row for rows in measured for row in rows]
    if len(measured) > 1:
        shown += [{**row, "strong": True} for row in means]
    errors = [{"data_set": name, "error": error} for name, error in failed.items()]
    return Document(
        title="Table 2: what each part of the method does",
        heading="A to F on the same encoder, engine and pictures",
        facts=facts,
        columns=COLUMNS,
        rows=[*map(_for_people, shown), *errors],
        notes=[*scale_warning(config), *_notes(means)],
        data={
            **data,
            "rows": means,
            "data_sets": {str(rows[0]["data_set"]): list(rows) for rows in measured},
            "failed": dict(failed),
            "published": {name: row._asdict() for name, row in published.TABLE_2.items()},
        },
    )


def _remark(remark: Callable[[str], None], name: str, variant: Variant, text: str) -> None:
    remark(f"{name}: {variant.name}, {variant.what}: {text}")


def _judge(
    detector: Detector, data: Dataset, progress: Progress, remark: Callable[[str], None]
) -> dict[str, Any]:
    start = time.perf_counter()
    detector.fit([sample.path for sample in data.train], progress=progress, remark=remark)
    fit_seconds = time.perf_counter() - start
    found = evaluate(
        detector, data.test, progress=lambda done, total: progress("inspect", done, total)
    )
    banks = detector.fitted_.banks
    return {
        **found.summary(),
        **asdict(total(fitted_costs(banks, detector.config.radius))),
        "fit_seconds": fit_seconds,
    }


def _means(measured: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Means over the data sets on which every variant worked, so that variants are comparable."""
    whole = [rows for rows in measured if not any("error" in row for row in rows)]
    means: list[dict[str, Any]] = []
    for number, variant in enumerate(VARIANTS):
        rows = [rows[number] for rows in whole]
        mean: dict[str, Any] = {
            "data_set": f"mean of {len(whole)}", "variant": variant.name, "what": variant.what,
        }  # fmt: skip
        if not rows:
            means.append({**mean, "error": "on every data set some variant failed"})
            continue
        for key in (*_ACCURACY, *_COUNTS, *_TIMES):
            values = [row[key] for row in rows if row.get(key) is not None]
            mean[key] = fmean(values) if values else None
        mean |= {key: harmonic_mean([row[key] for row in rows]) for key in _SPEEDS}
        means.append(mean)
    return means


def _for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert to percent and millions, and add the figures of the paper."""
    shown = dict(row)
    if "error" not in row:
        for name in ("image", "pixel"):
            value = row[f"{name}_auroc"]
            shown[f"{name}_percent"] = None if value is None else 100 * value
        shown["megabytes"] = row["bytes"] / 1e6
        shown["million_operations"] = row["operations"] / 1e6
    if printed := published.TABLE_2.get(str(row["variant"])):
        shown |= {f"published_{name}": value for name, value in printed._asdict().items()}
    return shown


def _notes(means: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        "A is not the peer's code: one memory for the whole picture and all layers, upsampled and "
        "concatenated, with FAPM's pooling, score and map, so that the memory alone differs.",
        "FPS, wall: from the file, with decoding and resizing, to score and map; device: a frame "
        "through encoder, search, score and map. Medians of turns that all variants take in one "
        f"process. Search is what the graph takes beyond the encoder "
        f"({means[0].get('encoder_ms', 0):.2f} ms).",
        "Counted: pairs of a cell and a key, and their multiply-adds, for one picture.",
        "Published: 15 categories of MVTec AD, Wide-ResNet50 on a Titan RTX, wall clock.",
    ]
