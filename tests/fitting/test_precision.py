"""Which precision a fit deploys, and what it says where that is not the fastest."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import fapm
from conftest import Command, Refusal
from fapm.config import Config
from fapm.encoder.freeze import freeze
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder
from fapm.errors import EngineError
from fapm.fitting import precision
from fapm.fitting.precision import choose_encoder, feature_noise
from stripes import good, good_pictures

Features = list[NDArray[np.float32]]

BF16 = precision._computes_bf16()


def pair(seed: int, size: float) -> tuple[Features, Features]:
    rng = np.random.default_rng(seed)
    exact = [rng.normal(3, 2, (3, 5, 4, 2)), rng.normal(-1, 7, (3, 8, 2, 1))]
    return exact, [f + rng.normal(scale=size, size=f.shape) for f in exact]


@given(seed=st.integers(0, 999), size=st.floats(0.01, 10), factor=st.floats(0.1, 100))
def test_noise_is_the_worst_layer_s_share_and_has_no_unit(
    seed: int, size: float, factor: float
) -> None:
    exact, rounded = pair(seed, size)
    expected = []
    for a, b in zip(exact, rounded, strict=True):
        vectors, moved = (np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]) for x in (a, b))
        step = [np.linalg.norm(v - w) ** 2 for v, w in zip(vectors, moved, strict=True)]
        spread = [np.linalg.norm(v - vectors.mean(axis=0)) ** 2 for v in vectors]
        expected.append(np.sqrt(np.mean(step) / np.mean(spread)))
    assert feature_noise(exact, rounded) == pytest.approx(max(expected))
    scaled = ([factor * f for f in features] for features in (exact, rounded))
    assert feature_noise(*scaled) == pytest.approx(max(expected))
    assert feature_noise(exact, exact) == 0


def test_constant_features_that_stay_constant_have_no_noise() -> None:
    flat = [np.ones((2, 3, 1, 1), np.float32)]
    assert feature_noise(flat, flat) == 0


def chosen(wanted: str, engine: str = "openvino") -> tuple[str, str]:
    config = Config.create(resize=64, precision=wanted)
    frozen, reason = choose_encoder(
        create_encoder(config), config, Runtime(engine=engine), lambda: good_pictures(6)
    )
    return frozen.precision, reason


def test_auto_is_int8_where_it_keeps_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "TOLERANCE", 9.0)
    assert chosen("auto") == ("int8", "")
    assert chosen("int8") == ("int8", "")


@pytest.mark.skipif(not BF16, reason="this processor does not compute in bf16")
def test_auto_falls_back_to_bf16_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    noises = iter([0.5, 0.4, 0.3, 0.1])  # int8 three times, then bf16
    monkeypatch.setattr(precision, "feature_noise", lambda exact, rounded: next(noises))
    assert chosen("auto") == (
        "bf16",
        "precision bf16, not int8: int8 moves the features of these pictures by 30 % of their "
        "spread, 15 % are harmless",
    )


def test_auto_falls_back_to_fp32_and_int8_asked_for_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "TOLERANCE", 0.0)
    kept, reason = chosen("auto")
    assert kept == "fp32"
    assert reason.startswith("precision fp32: int8 moves the features of these pictures by ")
    kept, reason = chosen("int8")
    assert kept == "int8"
    assert reason.endswith("0 % are harmless; faint defects may be missed")


def test_the_least_noisy_int8_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    noises = iter([0.5, 0.2, 0.3])  # with 0, 8 and 16 convolutions in float
    monkeypatch.setattr(precision, "feature_noise", lambda exact, rounded: next(noises))
    config = Config.create(resize=64, precision="int8")
    encoder, frames = create_encoder(config), good_pictures(4)
    kept, _ = choose_encoder(encoder, config, Runtime(), lambda: frames)
    assert kept.files == freeze(encoder, "int8", frames[::2], in_float=8).files


def test_without_nncf_auto_is_fp32_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        precision, "find_spec", lambda name: None if name == "nncf" else find_spec(name)
    )
    assert chosen("auto") == (
        "fp32",
        "precision fp32: int8 needs NNCF; type: pip install 'fapm[fit]'",
    )


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_other_engines_run_in_fp32(engine: str) -> None:
    assert chosen("auto", engine) == ("fp32", "")
    with pytest.raises(EngineError, match=r"^precision: int8 is OpenVINO's; with --engine"):
        chosen("int8", engine)


def test_first_convolutions_in_float_bring_int8_closer() -> None:
    config = Config.create(resize=96)
    encoder = create_encoder(config)
    frames = [good(seed, 96, 96) for seed in range(8)]
    expected = open_encoder(freeze(encoder, "fp32"), Runtime()).features(frames)
    plain, kept = (
        feature_noise(
            expected,
            open_encoder(freeze(encoder, "int8", frames, in_float=n), Runtime()).features(frames),
        )
        for n in (0, 8)
    )
    assert 0 < kept < plain


def test_the_reason_is_told_at_fit_and_travels_in_the_bundle(
    run: Command, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "TOLERANCE", 0.0)
    model = tmp_path / "part.fapm"
    said = run("fit", good, "-o", model, "--resize", 64, "--precision", "auto")
    assert said.code == 0
    assert "note: precision" in said.err
    assert any(note.startswith("precision") for note in fapm.load(model).notes_)
    assert "precision" in run("info", model).out


def test_no_readable_picture_is_told_as_such(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"nothing")
    said = refusal("fit", tmp_path / "bad", "-o", tmp_path / "part.fapm", "--precision", "auto")
    assert said.startswith("none of 1 picture could be read")
