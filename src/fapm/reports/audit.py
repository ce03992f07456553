"""Report of an audit: the most unusual training pictures first, with their maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fapm import images
from fapm.audit import Audit
from fapm.frames import Picture
from fapm.prediction import Box
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
    items = []
    for number in audit.order.tolist()[:shown]:
        picture, frame = pictures[audit.sources[number]], audit.frames[number]
        pixels = (
            images.read_image(Path(picture), max_pixels)
            if isinstance(picture, (str, Path))
            else images.as_image(picture)
        )
        small, small_map, _ = thumbnails(pixels, audit.anomaly_map(number), None)
        cells = found.cells[number]
        row, column = np.unravel_index(cells.argmax(), cells.shape)
        height, width = cells.shape
        seen = audit.config.input_size / audit.config.resize
        margin = (1 - seen) / 2
        score = float(found.scores[number])
        items.append(
            ReportItem(
                name=frame.name,
                image=small,
                anomaly_map=small_map,
                score=score,
                percentile=100 * float((found.scores < score).mean()),
                verdict="defect" if found.outlying[number] else "good",
                label=None,
                kind="unknown",
                mask=None,
                own_box=Box(
                    margin + seen * float(column) / width,
                    margin + seen * float(row) / height,
                    seen / width,
                    seen / height,
                ),
                reference_name=None,
                reference=None,
                reference_box=None,
            )
        )
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
