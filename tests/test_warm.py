"""A warm detector: the first picture takes no longer than the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fapm
from fapm import Detector
from fapm.engines.openvino_engine import OpenVinoEngine
from fapm.graph.scored import Scored
from stripes import fitted, good


def test_a_warm_detector_has_run_its_graph(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, detector: Detector
) -> None:
    frames: list[int] = []
    run = OpenVinoEngine.run

    def counted(engine: OpenVinoEngine, given: Sequence[NDArray[np.uint8]]) -> Scored:
        frames.append(len(given))
        return run(engine, given)

    monkeypatch.setattr(OpenVinoEngine, "run", counted)
    cold, warm = fapm.load(bundle), fapm.load(bundle, warm=True)
    assert frames == [1]
    engine = warm.engine_
    assert warm.warm() is warm
    assert warm.engine_ is engine
    assert warm.score(good(0)) == cold.score(good(0)) == detector.score(good(0))


@pytest.mark.parametrize("options", [{"keep_aspect": True}, {"crop": 48}], ids=str)
def test_frames_of_any_shape_are_warmed(options: dict[str, Any]) -> None:
    held = fitted([good(seed, 64, 96) for seed in range(3)], **options)
    assert held.warm().predict(good(0, 64, 96)).source == "array 0"


def test_tiles_are_warmed() -> None:
    config = fapm.Config.create(tile=48)
    held = Detector(config).fit([good(seed, 64, 96) for seed in range(3)])
    assert held.warm().predict(good(0, 64, 96)).source == "array 0"
