"""``fapm benchmark``: figures that are there, that agree, and that refuse what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Command, Refusal
from fapm.pictures import codec

SMALL = ("--resize", "64", "--pictures", "6", "--rounds", "2")
MEASURED = ("encoder_ms", "pipeline_ms", "patchcore_ms", "decode_ms", "resize_ms", "wall_ms")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_json_object_whose_figures_agree(precision: str, run: Command) -> None:
    finished = run("benchmark", *SMALL, "--precision", precision, "--json", "-", "--quiet")
    assert (finished.code, finished.err) == (0, "")
    figures = json.loads(finished.out)
    wanted = (*MEASURED, "fps_device", "fps_wall", "fit_seconds", "peak_mb")
    assert all(figures[name] > 0 for name in wanted)
    assert figures["precision"] == precision
    assert (figures["engine"], figures["n_train"], figures["rounds"]) == ("openvino", 6, 2)
    assert figures["threads"] >= 1
    assert "cores" in figures["machine"]
    assert figures["fps_device"] == pytest.approx(1000 / figures["pipeline_ms"])
    assert figures["search_ms"] == pytest.approx(figures["pipeline_ms"] - figures["encoder_ms"])
    assert figures["patchcore_over_pipeline"] == pytest.approx(
        figures["patchcore_ms"] / figures["pipeline_ms"]
    )
    assert figures["pipeline_ms"] <= figures["pipeline_p95_ms"] <= figures["pipeline_p99_ms"]
    assert ("pipeline_fp32_ms" in figures) == (precision == "int8")


def test_on_pictures_with_random_weights(good: Path, run: Command, tmp_path: Path) -> None:
    finished = run(
        *("benchmark", good, "--encoder", "resnet18", "--weights", "random", "--resize", "64"),
        *("--rounds", "1", "--threads", "1", "--json", tmp_path / "figures.json"),
    )
    assert finished.code == 0, finished.err
    assert "random weights: right for speed, meaningless for accuracy" in finished.err
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["n_train"], figures["threads"]) == (6, 1)
    assert (figures["encoder"], figures["weights"]) == ("resnet18", "random")
    assert "pipeline ms " in " ".join(finished.out.split())


def test_files_are_timed_as_they_are_and_broken_ones_passed_over(
    good: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (good / f"0 broken {number}.png").write_bytes(b"nothing")
    decoded: list[Path] = []
    read = codec.read_reduced

    def watch(path: Path, *rest: int) -> object:
        decoded.append(Path(path))
        return read(path, *rest)

    monkeypatch.setattr(codec, "read_reduced", watch)
    finished = run("benchmark", good, "--resize", "64", "--rounds", "1", "--json", "-", "--quiet")
    assert finished.code == 0, finished.err
    assert json.loads(finished.out)["n_train"] == 6
    assert {path.parent for path in decoded} == {good}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rounds", "0"), "rounds: 0 is not at least 1"),
        (("--pictures", "0"), "pictures: 0 is not at least 1"),
        (("--threads", "0"), "threads: 0 is not between"),
        (("--engine", "tpu"), "engine: unknown 'tpu'"),
    ],
)
def test_bad_benchmarks(options: tuple[str, ...], said: str, refusal: Refusal) -> None:
    assert refusal("benchmark", "--resize", "64", *options).startswith(said)
