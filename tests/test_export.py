"""Exported graphs score as the detector, with and without fapm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
from PIL import Image

import fapm
from conftest import Command, Refusal
from fapm import export
from fapm.errors import OutputError
from stripes import DEFECT, defective, fitted, good, good_pictures

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_an_exported_graph_scores_the_same_without_fapm(
    kind: str, bundle: Path, folder: Path, run: Command, tmp_path: Path
) -> None:
    finished = run("export", bundle, tmp_path / "out", "--to", kind)
    assert finished.code == 0, finished.err
    assert float(finished.out.split("difference ")[1].split()[0]) < 1e-3
    suffixes = {"onnx": {".onnx"}, "openvino": {".xml", ".bin"}}[kind]
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {*suffixes, ".json"}

    pictures = sorted(folder.iterdir())[:4]
    script = EXAMPLES / {"onnx": "onnxruntime_inspect.py", "openvino": "openvino_inspect.py"}[kind]
    assert "import fapm" not in script.read_text()
    command = [sys.executable, script, tmp_path / "out", *pictures]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    scores = [float(line.split()[1]) for line in said.stdout.splitlines()]
    np.testing.assert_allclose(scores, fapm.load(bundle).score(pictures), rtol=1e-3)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ example, compiled against the OpenVINO that pip installed."""
    if not (shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("cmake and a C++ compiler are not here")
    build = tmp_path_factory.mktemp("build")
    found = Path(openvino.__file__).parent / "cmake"
    for command in (
        ["cmake", "-S", EXAMPLES / "cpp", "-B", build, f"-DOpenVINO_DIR={found}"],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return build / "inspect"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_c_plus_plus_program_scores_the_same(
    program: Path, precision: str, tmp_path: Path
) -> None:
    held = fitted(good_pictures(), precision=precision)
    export.export(held, "openvino", tmp_path / "out", export.sample_frames(held))
    pictures = [good(seed) for seed in range(100, 103)] + [defective(7)]
    frames = [tmp_path / f"{number}.ppm" for number in range(len(pictures))]
    for picture, frame in zip(pictures, frames, strict=True):
        Image.fromarray(picture).save(frame)
    said = subprocess.run(
        [program, tmp_path / "out", *frames], capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in said.stdout.splitlines()]
    np.testing.assert_allclose([float(line[0]) for line in lines], held.score(pictures), rtol=1e-4)
    x, y = int(lines[-1][3].rstrip(",")), int(lines[-1][4])
    assert DEFECT[0].start <= y < DEFECT[0].stop
    assert DEFECT[1].start <= x < DEFECT[1].stop


def test_the_c_plus_plus_program_refuses_a_frame_of_another_size(
    program: Path, bundle: Path, run: Command, tmp_path: Path
) -> None:
    assert run("export", bundle, tmp_path).code == 0
    Image.fromarray(good(1, 32, 32)).save(tmp_path / "small.ppm")
    said = subprocess.run(
        [program, tmp_path, tmp_path / "small.ppm"], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == f"inspect: {tmp_path / 'small.ppm'}: must be 64 x 64 pixels\n"


def test_it_is_proven_on_given_pictures(
    bundle: Path, folder: Path, run: Command, refusal: Refusal, tmp_path: Path
) -> None:
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    (mixed / "0 broken.png").write_bytes(b"nothing")
    finished = run("export", bundle, tmp_path / "out", "--pictures", mixed)
    assert finished.code == 0, finished.err
    assert finished.out.endswith(f" on {len(list(folder.iterdir()))} pictures\n")
    broken = tmp_path / "mixed" / "0 broken.png"
    said = refusal("export", bundle, tmp_path / "none", "--pictures", broken)
    assert said.startswith("no picture could be read; the first: ")
    assert str(broken) in said


def test_what_goes_along_says_how_to_judge(bundle: Path, run: Command, tmp_path: Path) -> None:
    assert run("export", bundle, tmp_path, "--to", "onnx").code == 0
    about = json.loads((tmp_path / "detector.json").read_text())
    held = fapm.load(bundle)
    assert about["threshold"] == held.threshold_
    assert (about["batch"], about["runtime"]) == (1, "ONNX Runtime 1.17 or newer")
    assert (about["resize"], about["crop"], about["interpolation"]) == (64, None, "bicubic")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_old_openvino_reads_what_is_exported(precision: str, tmp_path: Path) -> None:
    """Nothing newer than opset 15, which OpenVINO 2024.6 has: `make lowest` tries it there."""
    held = fitted(good_pictures(4), precision=precision)
    export.export(held, "openvino", tmp_path, export.sample_frames(held))
    graph = (tmp_path / "model.xml").read_text()
    assert 'type="Identity"' not in graph
    assert max(map(int, re.findall(r'version="opset(\d+)"', graph))) <= 15
    about = json.loads((tmp_path / "detector.json").read_text())
    assert (about["batch"], about["runtime"]) == (1, "OpenVINO 2024.6 or newer")


def test_newer_operations_name_the_runtime_that_wrote_them(tmp_path: Path) -> None:
    graph = tmp_path / "model.xml"
    graph.write_text('<layer version="opset1"/><layer version="opset16"/>')
    least = export._least_runtime(graph)
    assert least == f"OpenVINO {openvino.__version__.split('-')[0]} or newer"


def test_int8_goes_to_openvino_and_not_to_onnx(
    run: Command, refusal: Refusal, tmp_path: Path
) -> None:
    fitted(good_pictures(), precision="int8").save(tmp_path / "int8.fapm")
    assert run("export", tmp_path / "int8.fapm", tmp_path / "out").code == 0
    said = refusal("export", tmp_path / "int8.fapm", tmp_path / "onnx", "--to", "onnx")
    assert said.startswith("precision: a bundle fitted with int8 cannot be exported to onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_file_that_scores_otherwise_is_not_left_behind(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = fapm.load(bundle)
    run_it = export._run_onnx
    monkeypatch.setattr(export, "_run_onnx", lambda path, frames: run_it(path, frames) * 1.01)
    with pytest.raises(OutputError, match=r"nothing exported: the onnx file scores 0\.01 off"):
        export.export(held, "onnx", tmp_path / "out", export.sample_frames(held))
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_exports(bundle: Path, refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    said = refusal("export", bundle, tmp_path / "out", "--to", "tflite")
    assert said == "to: unknown 'tflite'; choose one of onnx, openvino"
    assert str(tmp_path / "file") in refusal("export", bundle, tmp_path / "file")
