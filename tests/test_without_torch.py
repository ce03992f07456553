"""A base install has no torch: inspecting works there, and fitting says what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fapm
from conftest import Finished
from fapm import Detector
from stripes import fitted, good_pictures

ABSENT = ("torch", "torchvision", "timm", "nncf", "onnxruntime", "huggingface_hub", "elpv_dataset")

_WITHOUT = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None  # makes its import fail
sys.argv = ["fapm", *sys.argv[1:]]
from fapm.cli.app import main
main()
"""


def run_without_torch(*arguments: object) -> Finished:
    finished = subprocess.run(
        [sys.executable, "-c", _WITHOUT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "int8.fapm"
    fitted(good_pictures(), precision="int8").save(path)
    return path


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_inspecting_needs_no_torch(kind: str, bundle: Path, int8: Path, folder: Path) -> None:
    model = {"fp32": bundle, "int8": int8}[kind]
    finished = run_without_torch("inspect", folder, "--model", model, "--jsonl", "-")
    assert finished.code == 0, finished.err
    records = [json.loads(line) for line in finished.out.splitlines()]
    expected = fapm.load(model).score(sorted(folder.iterdir()))
    assert [record["score"] for record in records] == pytest.approx(list(expected), rel=1e-5)


def test_a_report_needs_no_torch(bundle: Path, folder: Path, tmp_path: Path) -> None:
    finished = run_without_torch(
        "inspect", folder, "--model", bundle, "--report", tmp_path, "--overlays", tmp_path / "maps"
    )
    assert finished.code == 0, finished.err
    assert (tmp_path / "report.html").is_file()


def test_info_and_doctor_need_no_torch(bundle: Path) -> None:
    for arguments in (("info", bundle), ("doctor",)):
        finished = run_without_torch(*arguments)
        assert finished.code == 0, finished.err
    assert "not installed" in finished.out


@pytest.mark.parametrize("command", ["fit", "demo"])
def test_fitting_says_what_to_install(command: str, folder: Path, tmp_path: Path) -> None:
    arguments = (folder, "-o", tmp_path / "x.fapm") if command == "fit" else ("-o", tmp_path)
    finished = run_without_torch(command, *arguments)
    assert (finished.code, finished.out) == (2, "")
    (line,) = [text for text in finished.err.splitlines() if text.startswith("fapm: ")]
    extra = "fapm[fit]" if command == "fit" else "fapm[demo]"
    assert line.endswith(f"is not installed; type: pip install '{extra}'") or (
        command == "demo" and line.endswith(f"type: pip install '{extra}'")
    )


@pytest.mark.parametrize("table", ["table1", "table2", "cost"])
def test_reproducing_says_what_to_install(table: str, folder: Path) -> None:
    finished = run_without_torch("reproduce", table, *([] if table == "cost" else [folder]))
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.endswith("is not installed; type: pip install 'fapm[fit]'\n")


@pytest.mark.parametrize("command", ["update", "audit"])
def test_learning_on_the_line_says_what_to_install(
    command: str, bundle: Path, folder: Path
) -> None:
    arguments = (bundle, folder) if command == "update" else (folder,)
    finished = run_without_torch(command, *arguments)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.startswith(f"fapm: {command}: ")
    assert finished.err.endswith("is not installed; type: pip install 'fapm[fit]'\n")


def test_forgetting_needs_no_torch(bundle: Path, tmp_path: Path) -> None:
    finished = run_without_torch("forget", bundle, "array 3", "-o", tmp_path / "less.fapm", "-q")
    assert finished.code == 0, finished.err
    assert "array 3" not in fapm.load(tmp_path / "less.fapm").fitted_.pictures


def test_the_torch_engine_says_what_to_install(bundle: Path, folder: Path) -> None:
    finished = run_without_torch("inspect", folder, "--model", bundle, "--engine", "torch")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == ("fapm: engine: torch is not installed; type: pip install 'fapm[fit]'\n")


def test_a_detector_from_python_needs_no_torch(detector: Detector, bundle: Path) -> None:
    program = (
        f"import sys\nfor name in {ABSENT!r}: sys.modules[name] = None\n"
        f"import fapm, numpy\nheld = fapm.load({str(bundle)!r})\n"
        "print(held.score(numpy.full((64, 64, 3), 90, numpy.uint8)))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    import numpy as np

    expected = detector.score(np.full((64, 64, 3), 90, np.uint8))
    assert float(finished.stdout) == pytest.approx(expected, rel=1e-5)
