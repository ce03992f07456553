"""Report of an audit: the most unusual training pictures first, with their maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from fapm.fitting.audit import Audit
from fapm.inspection.prediction import Box
from fapm.pictures import codec
from fapm.pictures.sources import Picture
from fapm.reports.heatmap import thumbnails
from fapm.reports.html import Report, ReportItem, write_report


def write_audit(
    path: Path, audit: Audit, pictures: Sequence[Picture], max_pixels: int, top: int
) -> None:
    """Write one page with the ``top`` pictures, and with more if more stand out.

    Parameters
    ----------
    pictures
        the audited pictures.

    Raises
    ------
    OutputError
        ``path`` cannot be written.
    """
    found = audit.found
    shown = max(top, int(found.outlying.sum()))
    items = [
        _item(audit, number, pictures[audit.sources[number]], max_pixels)
        for number in audit.order.tolist()[:shown]
    ]
    write_report(
        path,
        Report(
            title="Audit of the good pictures",
            summary=(
                ("pictures", f"{len(audit.frames)}, the {len(items)} most unusual are shown"),
                ("stand out", f"{int(found.outlying.sum())} with a score above {found.cut:.3g}"),
                ("encoder", f"{audit.config.encoder}, {audit.config.input_size} px"),
            ),
            normal_scores=found.scores,
            threshold=found.cut,
            unsure_threshold=math.nan,
            map_threshold=audit.map_level,
            items=items,
            failures=[(failure.source, failure.error) for failure in audit.skipped],
            metrics={},
            roc=None,
            pro=None,
            notes=(
                "Pictures are compared with each other: 'defect' means unlike the others, which a "
                "rare but good part is too. Look before you remove one.",
            ),
        ),
    )


def _item(audit: Audit, number: int, picture: Picture, max_pixels: int) -> ReportItem:
    """A picture with its map, and a box around its most unusual cell."""
    found, frame = audit.found, audit.frames[number]
    pixels = codec.read(picture, max_pixels=max_pixels).pixels
    small, small_map, _ = thumbnails(pixels, audit.anomaly_map(number), None)
    score = float(found.scores[number])
    return ReportItem(
        name=frame.name,
        image=small,
        anomaly_map=small_map,
        score=score,
        percentile=100 * float((found.scores < score).mean()),
        verdict="defect" if found.outlying[number] else "good",
        label=None,
        kind="unknown",
        mask=None,
        own_box=_box(audit, number),
        reference_name=None,
        reference=None,
        reference_box=None,
    )


def _box(audit: Audit, number: int) -> Box:
    """Where the most unusual cell of a picture lies, in shares of the picture's edges."""
    cells = audit.found.cells[number]
    shape = (cells.shape[0], cells.shape[1])
    return Box(*audit.preparation.place(int(cells.argmax()), shape, audit.frames[number].traces))
