"""One HTML page with all results of a run; it loads no file and runs no script."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fapm.bundle.calibration import Verdict
from fapm.inspection.prediction import Box
from fapm.inspection.rendering import SATURATION
from fapm.pictures.codec import encode_jpeg
from fapm.reports.charts import brief, pro_chart, roc_chart, score_histogram
from fapm.reports.heatmap import crop_around, decode_jpeg, draw_mask_contour, overlay
from fapm.reports.templates import render
from fapm.system.files import make_directory, replaced_when_complete

MAX_PICTURES = 300
_SAMPLE = 30  # of them, spread over the pictures that neither score high nor are judged wrong
_QUALITY = 80

_Floats = NDArray[np.float64]
Outcome = Literal["caught", "missed", "passed", "false alarm", "unsure"]

# label, and what it says to someone who has never met it
_METRICS = {
    "image_auroc": ("image AUROC", "chance that a defective picture scores above a good one"),
    "image_ap": ("image AP", "share of alarms that are right, averaged over all thresholds"),
    "image_f1_max": (
        "image F1-max",
        "best balance of alarms right and defects caught, in hindsight",
    ),
    "pixel_auroc": ("pixel AUROC", "chance that a defective pixel scores above a good one"),
    "pixel_ap": ("pixel AP", "share of marked pixels that are right, averaged over all thresholds"),
    "pixel_f1_max": ("pixel F1-max", "best balance of pixels right and defect area found"),
    "aupro": ("AUPRO", "share of each defect's area marked, at up to 30 % of good pixels marked"),
    "aupimo": (
        "AUPIMO",
        "share of each picture's defects marked, at 1 to 10 in 100,000 pixels of good ones marked",
    ),
}


@dataclass(frozen=True)
class ReportItem:
    """One inspected picture.

    Attributes
    ----------
    image
        uint8 ``[h, w, 3]``, RGB, a thumbnail: it is embedded at this size.
    anomaly_map
        float32 ``[h, w]``, raw.
    percentile
        percentage of the normal pictures that score lower, ``0 .. 100``; NaN if unknown.
    label
        0 good, 1 defect, None unknown.
    kind
        kind of defect, by its name in the data set.
    mask
        bool ``[h, w]``, True in the defect.
    own_box
        the worst cell of this picture.
    reference_name, reference, reference_box
        the nearest normal picture, a JPEG of it, and its closest cell.
    reason
        reason for which the verdict is ``unsure`` whatever the score.
    """

    name: str
    image: NDArray[np.uint8]
    anomaly_map: NDArray[np.float32]
    score: float
    percentile: float
    verdict: Verdict
    label: int | None
    kind: str
    mask: NDArray[np.bool_] | None
    own_box: Box
    reference_name: str | None
    reference: bytes | None
    reference_box: Box | None
    reason: str | None = None

    @property
    def outcome(self) -> Outcome | None:
        """Verdict compared with the label; None without a label."""
        if self.label is None:
            return None
        if self.verdict == "unsure":
            return "unsure"
        if self.label:
            return "caught" if self.verdict == "defect" else "missed"
        return "passed" if self.verdict == "good" else "false alarm"

    @property
    def wrong(self) -> bool:
        return self.outcome in ("missed", "false alarm")


@dataclass(frozen=True)
class Report:
    """Results of one run.

    Attributes
    ----------
    summary
        facts as name and value: data set, encoder, keys, fit time.
    normal_scores
        float64 ``[N]``, leave-one-out scores of the training pictures.
    threshold, unsure_threshold, map_threshold
        levels of the image score and of the anomaly map; NaN if not known.
    failures
        source and one-line error of each picture that could not be inspected.
    metrics
        values by their names in the JSON output; None if labels or masks are missing.
    roc, pro
        false-positive rate, and true-positive rate or overlap; float64 ``[k]`` each.
    notes
        limits of the detector and choices of the fit; one sentence each.
    """

    title: str
    summary: tuple[tuple[str, str], ...]
    normal_scores: _Floats
    threshold: float
    unsure_threshold: float
    map_threshold: float
    items: Sequence[ReportItem]
    failures: Sequence[tuple[str, str]]
    metrics: Mapping[str, float | None]
    roc: tuple[_Floats, _Floats] | None
    pro: tuple[_Floats, _Floats] | None
    notes: Sequence[str]


@dataclass(frozen=True)
class _Card:
    """An item and its pictures as data URIs."""

    item: ReportItem
    picture: str
    heatmap: str
    own_crop: str
    reference_crop: str | None


@dataclass(frozen=True)
class _Metric:
    """One figure as shown to people."""

    label: str
    value: str
    meaning: str


def write_report(path: Path, report: Report) -> None:
    """Write ``report`` as one self-contained page, whole or not at all; its folder is created.

    If there are more than ``MAX_PICTURES`` items, pictures are shown only of wrongly judged items,
    of the highest scores and of a sample of the others. The rest are rows of a table.

    Raises
    ------
    OutputError
        ``path`` cannot be written; an earlier file stays untouched.
    """
    # A file name need not be valid text on Linux, and a page has to be.
    page = _render(report).encode("utf-8", errors="replace")
    make_directory(path.parent)
    with replaced_when_complete(path) as file:
        file.write(page)


def _render(report: Report) -> str:
    ranked = sorted(report.items, key=lambda item: (-item.score, item.name))
    pictured = _pictured(ranked)
    outcomes = Counter((item.label, item.outcome) for item in ranked)
    return render(
        "report.html.j2",
        {"brief": brief, "percentile": _percentile},
        report=report,
        verdicts=Counter(item.verdict for item in ranked),
        wrong=sum(item.wrong for item in ranked),
        outcomes=outcomes,
        defects=sum(item.label == 1 for item in ranked),
        good=sum(item.label == 0 for item in ranked),
        metrics=_metrics(report.metrics),
        charts=_charts(report, ranked),
        scale=_scale(),
        any_mask=any(ranked[rank].mask is not None for rank in pictured),
        map_threshold_known=not math.isnan(report.map_threshold),
        ratio_known=report.threshold > 0,
        cards=[_card(ranked[rank], report.map_threshold) for rank in sorted(pictured)],
        rows=[item for rank, item in enumerate(ranked) if rank not in pictured],
    )


def _pictured(ranked: Sequence[ReportItem]) -> set[int]:
    """Ranks of the items that are shown with pictures."""
    ranks = range(len(ranked))
    if len(ranked) <= MAX_PICTURES:
        return set(ranks)
    by_need = sorted(ranks, key=lambda rank: not ranked[rank].wrong)
    needed, others = by_need[: MAX_PICTURES - _SAMPLE], by_need[MAX_PICTURES - _SAMPLE :]
    spread = np.linspace(0, len(others) - 1, _SAMPLE).astype(int)
    return {*needed, *(others[position] for position in spread)}


def _card(item: ReportItem, map_threshold: float) -> _Card:
    heatmap = overlay(item.image, item.anomaly_map, map_threshold)
    if item.mask is not None:
        heatmap = draw_mask_contour(heatmap, item.mask)
    reference_crop = None
    if item.reference is not None and item.reference_box is not None:
        reference_crop = _data_uri(crop_around(decode_jpeg(item.reference), item.reference_box))
    return _Card(
        item,
        _data_uri(item.image),
        _data_uri(heatmap),
        _data_uri(crop_around(item.image, item.own_box)),
        reference_crop,
    )


def _charts(report: Report, items: Sequence[ReportItem]) -> list[tuple[str, Markup]]:
    """Heading and drawing of histogram, ROC and PRO, if there is something to draw."""
    scores = np.array([item.score for item in items], dtype=np.float64)
    labels = [item.label for item in items]
    histogram = score_histogram(
        report.normal_scores, scores, labels, report.threshold, report.unsure_threshold
    )
    charts = [("Image scores", histogram)] if histogram else []
    if report.roc is not None:
        point = _operating_point(scores, labels, report.threshold)
        charts.append(("ROC, by picture", roc_chart(*report.roc, point)))
    if report.pro is not None:
        charts.append(("PRO, by defect region", pro_chart(*report.pro)))
    # This is safe: a chart holds only numbers and words of its own, and no text from outside.
    return [(heading, Markup(chart)) for heading, chart in charts]


def _operating_point(
    scores: _Floats, labels: Sequence[int | None], threshold: float
) -> tuple[float, float] | None:
    """False- and true-positive rate at the fitted threshold, if both classes are there."""
    if math.isnan(threshold) or not {0, 1} <= set(labels):
        return None
    alarms = scores > threshold
    good, defect = (np.array([label == truth for label in labels]) for truth in (0, 1))
    return float(alarms[good].mean()), float(alarms[defect].mean())


def _metrics(metrics: Mapping[str, float | None]) -> list[_Metric]:
    if all(value is None for value in metrics.values()):
        return []  # no picture has a label
    return [_metric(name, value) for name, value in metrics.items()]


def _metric(name: str, value: float | None) -> _Metric:
    label, meaning = _METRICS.get(name, (name.replace("_", " "), ""))
    if value is None:
        return _Metric(label, "-", "needs labels or masks that the data set does not have")
    return _Metric(label, f"{value:.3f}" if name in _METRICS else brief(value), meaning)


def _scale() -> str:
    """Draw the colours of the heatmaps from 0 to saturation, on grey and by the same function."""
    grey = np.full((24, 400, 3), 128, dtype=np.uint8)
    levels = np.linspace(0, SATURATION, 400, dtype=np.float32)
    return _data_uri(overlay(grey, np.tile(levels, (24, 1)), math.nan))


def _data_uri(image: NDArray[np.uint8]) -> str:
    data = base64.b64encode(encode_jpeg(image, _QUALITY)).decode("ascii")
    return f"data:image/jpeg;base64,{data}"


def _percentile(value: float) -> str:
    """The percentile of a picture among the normal ones, in words."""
    if math.isnan(value):
        return "no normal pictures to compare with"
    # Rounding must not turn 'nearly all' into 'all'.
    return (
        "above all normal pictures"
        if value == 100
        else f"above {min(value, 99.9):.3g} % of normal pictures"
    )
