"""What values say of themselves: one line that fits a screen, without arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fapm import Config, Detector, DriftMonitor, Failure
from stripes import defective


def test_a_prediction(detector: Detector) -> None:
    prediction = detector.predict(defective(30))
    levels = f"score {prediction.score:.4g}, threshold {prediction.threshold:.4g}"
    assert repr(prediction) == f"Prediction('array 0', defect, {levels}, 1 region)"
    quiet = replace(prediction, source="a" * 200, frame_map=np.zeros((2, 2), np.float32))
    assert repr(quiet).endswith(f"aaa', defect, {levels}, 0 regions)")
    assert len(repr(quiet)) < 150
    assert "thumbnail=" not in repr(prediction.comparison)
    assert "contour=" not in repr(prediction.regions)


def test_a_failure(detector: Detector) -> None:
    (failure,) = detector.stream("lost.png")
    assert repr(failure) == "Failure('lost.png', 'lost.png: no such file; check the path')"
    assert len(repr(Failure("a" * 999, "b" * 999))) < 200


def test_a_config_names_what_is_not_as_in_fast() -> None:
    assert repr(Config()) == "Config()"
    config = Config(resize=64, light="gain")
    assert repr(config) == "Config(resize=64, light='gain')"
    assert eval(repr(config)) == config


def test_a_monitor(detector: Detector) -> None:
    monitor = DriftMonitor(detector.fitted_.baseline)
    assert repr(monitor) == "DriftMonitor(no drift in 0 pictures, score 0)"
