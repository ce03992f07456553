"""Make a report from predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fapm.detector import Detector
from fapm.inspection.prediction import Prediction
from fapm.measure.evaluate import Evaluation
from fapm.pictures import codec
from fapm.pictures.masks import read_masks
from fapm.reports.heatmap import draw_inspected, thumbnails
from fapm.reports.html import Report, ReportItem


def compose(
    title: str,
    detector: Detector,
    evaluation: Evaluation,
    *,
    summary: Mapping[str, str],
    notes: Sequence[str] = (),
    pictures: Sequence[NDArray[np.uint8]] | None = None,
) -> Report:
    """Make the report of an evaluation for :func:`fapm.reports.html.write_report`.

    Parameters
    ----------
    summary
        facts by their names: data set, encoder, fit time.
    notes
        sentences to show in addition to those of the detector.
    pictures
        arrays in place of the samples' files, as in :func:`fapm.measure.evaluate.evaluate`.
    """
    calibration = detector.fitted_.calibration
    items = []
    for number, (sample, result) in enumerate(
        zip(evaluation.samples, evaluation.results, strict=True)
    ):
        if not isinstance(result, Prediction):
            continue
        picture = (
            codec.read_image(Path(result.source), detector.max_pixels)
            if pictures is None
            else codec.as_image(pictures[number])
        )
        mask = None
        if number in evaluation.masks and sample.masks:
            mask = read_masks(sample.masks, result.height, result.width).inside
        small, small_map, small_mask = thumbnails(picture, result.anomaly_map, mask)
        if result.inspected is not None:
            small = draw_inspected(small, result.inspected)
        comparison = result.comparison
        items.append(
            ReportItem(
                name=sample.path.name if sample.kind == "unknown" else _name(sample.path),
                image=small,
                anomaly_map=small_map,
                score=result.score,
                percentile=result.percentile,
                verdict=result.verdict,
                label=sample.label,
                kind=sample.kind,
                mask=small_mask,
                own_box=comparison.here,
                reference_name=Path(comparison.picture).name,
                reference=comparison.thumbnail,
                reference_box=comparison.there,
                reason=result.reason,
            )
        )
    return Report(
        title=title,
        summary=tuple(summary.items()),
        normal_scores=calibration.scores,
        threshold=calibration.threshold,
        unsure_threshold=calibration.unsure_threshold,
        map_threshold=calibration.map_threshold,
        items=items,
        failures=[(failure.source, failure.error) for failure in evaluation.failures],
        metrics=evaluation.summary(),
        roc=evaluation.roc,
        pro=evaluation.pro,
        notes=[*detector.notes_, *notes],
    )


def _name(path: Path) -> str:
    """Folder and file name: MVTec numbers its pictures anew in every folder."""
    return str(Path(path.parent.name) / path.name)
