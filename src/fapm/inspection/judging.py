"""What an engine says of frames, judged: predictions in the geometry of the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fapm.bundle.calibration import Verdict
from fapm.bundle.fitted import Fitted
from fapm.frames.align import MIN_COVERED, Registration, Template, moved_box, restore
from fapm.frames.preparation import Frame
from fapm.graph.scored import Scored
from fapm.inspection.drift import DriftMonitor
from fapm.inspection.prediction import Box, Comparison, Prediction
from fapm.memory import geometry


def judge(
    fitted: Fitted, frames: Sequence[Frame], scored: Scored, drift: DriftMonitor | None
) -> Iterator[Prediction]:
    """The predictions of frames that an engine has scored, in their order.

    Parameters
    ----------
    drift
        is shown each frame that has a look, before its prediction is yielded.
    """
    calibration, config, alignment = fitted.calibration, fitted.config, fitted.alignment
    for i, frame in enumerate(frames):
        score = float(scored.scores[i])
        verdict, frame_map, reason = calibration.verdict(score), scored.maps[i], None
        inspected = fitted.frame_roi
        if frame.registration is not None and alignment is not None:
            frame_map = restore(frame_map, frame.registration)
            if inspected is not None:  # it moves with the part
                inspected = restore(inspected.astype(np.float32), frame.registration) >= 0.5
            reason = unsure_reason(alignment.template, frame.registration, verdict)
        if drift is not None and frame.look is not None:
            drift.update(frame.look, scored.maps[i], frame.name)
        yield Prediction(
            source=frame.name,
            score=score,
            percentile=calibration.percentile(score),
            verdict="unsure" if reason else verdict,
            threshold=calibration.threshold,
            map_threshold=calibration.map_threshold,
            frame_map=frame_map,
            height=frame.height,
            width=frame.width,
            resize=config.resize,
            crop=config.crop,
            comparison=_comparison(fitted, scored, i, frame),
            roi=inspected,
            reason=reason,
        )


def _comparison(fitted: Fitted, scored: Scored, row: int, frame: Frame) -> Comparison:
    config = fitted.config
    layer = int(scored.distances[row].argmax())
    bank, key = fitted.banks[layer], int(scored.keys[row, layer])
    picture = int(bank.pictures[key])
    height, width = geometry.finest((b.height, b.width) for b in fitted.banks)
    here = frame.registration.matrix if frame.registration else None
    there = fitted.alignment.matrices[picture] if fitted.alignment else None
    return Comparison(
        picture=fitted.pictures[picture],
        distance=float(scored.distances[row, layer]),
        layer=fitted.encoder.spec.layers[layer] if config.layer_wise else "all",
        here=_box(fitted, int(scored.cells[row]), height, width, here),
        there=_box(fitted, int(bank.cells[key]), bank.height, bank.width, there),
        thumbnail=fitted.thumbnails.get(picture),
    )


def _box(
    fitted: Fitted, cell: int, height: int, width: int, matrix: NDArray[np.float64] | None
) -> Box:
    """A cell's place in the whole picture; crop, tiles and registration taken into account."""
    config, layout = fitted.config, fitted.layout
    y, x = divmod(cell, width)
    (top, high), (left, wide) = layout.rows.bounds(y, height), layout.columns.bounds(x, width)
    box = (left, top, wide, high)
    if config.follows_pictures:
        return Box(*box)
    margin, seen = config.seen
    if matrix is not None:
        box = moved_box(box, matrix, config.input_size)
    left, top, wide, high = (seen * side for side in box)
    return Box(margin + left, margin + top, wide, high)


def unsure_reason(template: Template, found: Registration, verdict: Verdict) -> str | None:
    """Why a frame is unsure whatever its score says; None if it is not."""
    if not found.correlation >= template.floor:
        return (
            f"the part was not found: it resembles the good ones by {found.correlation:.2f}, "
            f"at least {template.floor:.2f} is needed"
        )
    if verdict == "good" and found.covered < MIN_COVERED:
        return f"only {100 * found.covered:.0f} % of what the good pictures show is in the picture"
    return None
