"""Engines: every one says the same, and what cannot be run is refused in one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fapm
from conftest import Command, Refusal
from fapm import Detector
from fapm.engines import opening as engines
from fapm.engines import openvino_engine
from fapm.engines.base import Runtime
from fapm.errors import EngineError
from fapm.graph.buckets import cut_buckets
from stripes import CONFIG, defective, good, good_pictures
from stripes import fitted as fit

ENGINES = ["openvino", "torch", "onnxruntime"]


@pytest.fixture(scope="module")
def int8() -> Detector:
    return fit(good_pictures(), precision="int8")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bundle_says_the_same_on_every_engine(engine: Any, bundle: Path) -> None:
    pictures = [good(300), defective(301), good(302)]
    expected = fapm.load(bundle).predict(pictures)
    for ours, theirs in zip(
        fapm.load(bundle, runtime=Runtime(engine=engine)).predict(pictures), expected, strict=True
    ):
        assert ours.score == pytest.approx(theirs.score, rel=1e-3)
        assert ours.verdict == theirs.verdict
        assert ours.comparison.picture == theirs.comparison.picture
        peak = theirs.frame_map.max()
        np.testing.assert_allclose(ours.frame_map, theirs.frame_map, atol=1e-3 * peak)


@pytest.mark.parametrize("engine", ENGINES)
def test_fits_on_any_engine_agree(engine: Any) -> None:
    held = Detector(CONFIG, runtime=Runtime(engine=engine))
    held.fit(good_pictures())
    assert held.threshold_ == pytest.approx(fit(good_pictures()).threshold_, rel=1e-3)


def test_throughput_gives_the_same_predictions_in_the_same_order(bundle: Path) -> None:
    pictures = [good(seed) if seed % 3 else defective(seed) for seed in range(11)]
    expected = fapm.load(bundle).score(pictures)
    held = fapm.load(bundle, runtime=Runtime(hint="throughput", threads=2))
    np.testing.assert_allclose(held.score(pictures), expected, rtol=1e-5)


def test_an_int8_detector_judges_in_int8_and_so_does_its_bundle(
    int8: Detector, tmp_path: Path
) -> None:
    assert int8.fitted_.encoder.precision == "int8"
    int8.save(tmp_path / "part.fapm")
    held = fapm.load(tmp_path / "part.fapm")
    for seed in range(5):
        assert held.score(defective(seed)) == int8.score(defective(seed))
        assert int8.predict(defective(seed)).verdict == "defect"
    assert int8.predict(good(400)).verdict != "defect"


def test_the_same_int8_fit_gives_the_same_bytes(int8: Detector, tmp_path: Path) -> None:
    int8.save(tmp_path / "one.fapm")
    fit(good_pictures(), precision="int8").save(tmp_path / "two.fapm")
    assert (tmp_path / "one.fapm").read_bytes() == (tmp_path / "two.fapm").read_bytes()


def test_int8_search_scores_as_plain_differences_do(int8: Detector) -> None:
    """The same features, once searched by 8-bit products and once in float32."""
    from torch import from_numpy

    from fapm.graph.reference import Search, aggregate

    fitted = int8.fitted_
    runner = engines.open_encoder(fitted.encoder, Runtime())
    frames = [good(seed) if seed % 2 else defective(seed) for seed in range(12)]
    features = aggregate([from_numpy(f) for f in runner.features(frames)], fitted.config)
    # Smoothed, the score is of many cells, as the products have them: those of a clear defect lie
    # beyond the range of 8 bits.
    smoothed = Search(fitted.config, fitted.banks)(features).scores.numpy()
    scores = int8.engine_.run(frames).scores
    np.testing.assert_allclose(scores, smoothed, rtol=0.05)
    np.testing.assert_allclose(scores[1::2], smoothed[1::2], rtol=3e-3)  # the good ones

    fitted = replace(fitted, config=fitted.config.model_copy(update={"score_sigma": 0.0}))
    exact = Search(fitted.config, fitted.banks)(features)
    said = engines.open_engine(fitted, Runtime()).run(frames)
    np.testing.assert_allclose(said.scores, exact.scores, rtol=1e-3)
    np.testing.assert_array_equal(said.cells, exact.cells)
    np.testing.assert_array_equal(said.keys, exact.keys)
    np.testing.assert_allclose(said.maps, exact.maps, atol=0.05 * float(exact.maps.max()))


@pytest.mark.skipif(
    "BF16" not in openvino_engine.capabilities(), reason="this processor has no bf16"
)
def test_a_bf16_detector_rounds_its_encoder_and_nothing_else() -> None:
    held = fit(good_pictures(), precision="bf16", score_sigma=0)
    assert held.fitted_.encoder.precision == "bf16"
    runner = engines.open_encoder(held.fitted_.encoder, Runtime())
    from torch import from_numpy

    from fapm.graph.reference import Search, aggregate

    frames = [good(1), defective(2)]
    features = aggregate([from_numpy(f) for f in runner.features(frames)], held.config)
    exact = Search(held.config, held.fitted_.banks)(features)
    np.testing.assert_allclose(held.engine_.run(frames).scores, exact.scores, rtol=1e-3)


# What is refused


def test_a_processor_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "capabilities", lambda: ("FP32", "INT8"))
    with pytest.raises(EngineError, match=r"^precision: this processor does not compute in bf16"):
        fit(good_pictures(3), precision="bf16")


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_int8_belongs_to_openvino(engine: Any, int8: Detector, tmp_path: Path) -> None:
    int8.save(tmp_path / "part.fapm")
    held = fapm.load(tmp_path / "part.fapm", runtime=Runtime(engine=engine))
    with pytest.raises(EngineError, match=rf"^engine: {engine} cannot run a memory fitted with"):
        held.score(good(1))
    config = fapm.Config.create(resize=64, precision="int8")
    unfitted = Detector(config, runtime=Runtime(engine=engine))
    with pytest.raises(EngineError, match=r"^precision: int8 is OpenVINO's"):
        unfitted.fit(good_pictures(3))


def test_another_precision_than_the_fitted_one(
    int8: Detector, tmp_path: Path, refusal: Refusal, good: Path
) -> None:
    int8.save(tmp_path / "part.fapm")
    said = refusal("inspect", good, "--model", tmp_path / "part.fapm", "--precision", "fp32")
    assert said.startswith("precision: this bundle was fitted with int8 and cannot run in fp32")
    assert said.endswith("fit again with --precision fp32")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threads", "0"], "threads: 0 is not between 1 and 1024"),
        (["--threads", "-3"], "threads: -3 is not between"),
        (["--engine", "tensorrt"], "engine: unknown 'tensorrt'; choose one of auto, openvino"),
        (["--hint", "speed"], "hint: unknown 'speed'; choose one of latency, throughput"),
        (
            ["--engine", "onnxruntime", "--providers", "NoneProvider"],
            "provider: this ONNX Runtime has no NoneProvider; it has ",
        ),
    ],
)
def test_runtimes_that_cannot_be(
    options: list[str], said: str, model: Path, good: Path, refusal: Refusal
) -> None:
    assert refusal("inspect", good, "--model", model, *options).startswith(said)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_is_not_installed(
    name: Any, monkeypatch: pytest.MonkeyPatch, model: Path, good: Path, refusal: Refusal
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda package: None)
    said = refusal("inspect", good, "--model", model, "--engine", name)
    package = "fapm[fit]" if name == "torch" else name
    assert said == f"engine: {name} is not installed; type: pip install '{package}'"


def test_every_engine_can_be_named_on_the_command_line(
    model: Path, good: Path, run: Command
) -> None:
    for engine in ENGINES:
        finished = run("inspect", good, "--model", model, "--engine", engine, "--threads", "1")
        assert finished.code == 0, finished.err


# Telemetry

_WATCHED = """
import sys
attempts = []
sys.addaudithook(lambda event, a: attempts.append((event, a))
                 if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto") else None)
{body}
print("attempts:", len(attempts))
"""


def attempts(body: str, home: Path) -> str:
    """How many connections a program tried, as it says itself."""
    finished = subprocess.run(
        [sys.executable, "-c", _WATCHED.format(body=body)],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(home), "PATH": "", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()[-1]


def test_fitting_in_int8_and_inspecting_connects_to_nobody(tmp_path: Path) -> None:
    body = (
        "import stripes, fapm\n"
        "held = stripes.fitted(stripes.good_pictures(4), precision='int8')\n"
        "held.predict(stripes.good(1))\n"
    )
    assert attempts(body, tmp_path) == "attempts: 0"
    assert not (tmp_path / "intel").exists()  # where telemetry would keep its identity


def test_the_watch_notices_a_connection(tmp_path: Path) -> None:
    body = "import socket\nsocket.socket().connect_ex(('127.0.0.1', 9))"
    assert attempts(body, tmp_path) == "attempts: 1"


# Buckets


def test_buckets_cover_all_patches_once_and_pay() -> None:
    rng = np.random.default_rng(0)
    for cost in (0.0, 50.0, 1e9):
        counts = np.sort(rng.integers(4, 1000, 49))
        cuts = cut_buckets(counts, cost, 8)
        assert [i for start, stop in cuts for i in range(start, stop)] == list(range(49))
        padded = sum((stop - start) * counts[stop - 1] for start, stop in cuts)
        assert padded + cost * len(cuts) <= 49 * counts[-1] + cost
    assert len(cuts) == 1
