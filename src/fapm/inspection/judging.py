"""Judge the results of an engine: predictions in the geometry of the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fapm.bundle.fitted import Fitted
from fapm.frames.align import Align, Registration
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
    calibration, preparation = fitted.calibration, fitted.preparation
    for i, frame in enumerate(frames):
        score = float(scored.scores[i])
        verdict = calibration.verdict(score)
        reason = preparation.doubt(frame.traces, verdict)
        if drift is not None and frame.look is not None:
            drift.update(frame.look, scored.maps[i], frame.name)
        yield Prediction(
            source=frame.name,
            score=score,
            percentile=calibration.percentile(score),
            verdict="unsure" if reason else verdict,
            threshold=calibration.threshold,
            map_threshold=calibration.map_threshold,
            frame_map=preparation.restore(scored.maps[i], frame.traces),
            height=frame.height,
            width=frame.width,
            layout=fitted.layout,
            comparison=_comparison(fitted, scored, i, frame),
            roi=preparation.inspected(frame.traces),
            reason=reason,
        )


def _comparison(fitted: Fitted, scored: Scored, row: int, frame: Frame) -> Comparison:
    layer = int(scored.distances[row].argmax())
    bank, key = fitted.banks[layer], int(scored.keys[row, layer])
    picture = int(bank.pictures[key])
    finest = geometry.finest([(bank.height, bank.width) for bank in fitted.banks])
    there: dict[str, Registration] = {}
    if fitted.places is not None:
        there[Align.name] = Registration(fitted.places[picture], 1.0, 1.0)
    place = fitted.preparation.place
    return Comparison(
        picture=fitted.pictures[picture],
        distance=float(scored.distances[row, layer]),
        layer=fitted.encoder.spec.layers[layer] if fitted.config.layer_wise else "all",
        here=Box(*place(int(scored.cells[row]), finest, frame.traces)),
        there=Box(*place(int(bank.cells[key]), (bank.height, bank.width), there)),
        thumbnail=fitted.thumbnails.get(picture),
    )
