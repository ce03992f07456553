"""Libraries that are not there, or there and broken, are told apart, and named with the reason."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import run_process
from fapm.errors import EngineError
from fapm.system.imports import import_problem, import_quietly, needed_for

REASON = "libtbb.so.12: cannot open shared object file"

Library = Callable[[str, str], None]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Writes a package whose import runs some code; no other test has one of its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, code: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)

    return write


def said_of(name: str) -> str:
    """As one of fapm's own modules says it: what runs outside of them is a library's."""
    ours = {"__name__": "fapm.test", "needed_for": needed_for, "import_quietly": import_quietly}
    with pytest.raises(EngineError) as caught:
        exec(f"with needed_for('fit', 'fapm[fit]'): import_quietly({name!r})", ours)
    return str(caught.value)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (f"raise ImportError({REASON!r})", REASON),
        ("raise OSError('[WinError 126] no such\\nmodule')", "[WinError 126] no such module"),
        ("raise RuntimeError('operator x::nms does not exist')", "operator x::nms does not exist"),
        ("from broken import nothing", "cannot import name 'nothing' from"),
        ("import broken_not_there", "No module named 'broken_not_there'"),
        ("def load():\n    raise OSError('deep')\nload()", "deep"),
    ],
)
def test_a_broken_library_is_not_called_missing(code: str, reason: str, library: Library) -> None:
    sys.modules.pop("broken", None)
    library("broken", code)
    said = said_of("broken")
    assert said.startswith(f"fit: broken is installed but cannot be loaded: {reason}")
    assert said.endswith("type: pip install --force-reinstall broken")
    assert "\n" not in said


def test_the_library_that_is_broken_is_named_and_not_the_one_that_needs_it(
    library: Library,
) -> None:
    library("broken_below", f"raise ImportError({REASON!r})")
    library("broken_above", "import broken_below")
    assert said_of("broken_above").startswith("fit: broken_below is installed but cannot be loaded")


def test_a_missing_library_says_what_to_install() -> None:
    assert said_of("broken_nowhere.part") == (
        "fit: broken_nowhere is not installed; type: pip install 'fapm[fit]'"
    )


def test_other_errors_are_not_taken_for_a_broken_library() -> None:
    with pytest.raises(ValueError, match="invalid literal"), needed_for("fit", "fapm[fit]"):
        int("one")
    assert import_problem(KeyError("x")) is None


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("openvino", ("inspect", "{folder}", "--model", "{bundle}")),
        ("openvino", ("export", "{bundle}", "{out}")),
        ("onnxruntime", ("inspect", "{folder}", "--model", "{bundle}", "--engine", "onnxruntime")),
        ("torch", ("fit", "{folder}", "-o", "{out}")),
        ("cv2", ("info", "{bundle}")),
    ],
)
def test_a_command_names_the_broken_library(
    name: str,
    arguments: tuple[str, ...],
    library: Library,
    folder: Path,
    bundle: Path,
    tmp_path: Path,
) -> None:
    library(name, f"raise ImportError({REASON!r})")
    places = {"folder": folder, "bundle": bundle, "out": tmp_path / "out"}
    given = [argument.format(**places) for argument in arguments]
    finished = run_process(*given, PYTHONPATH=str(tmp_path))
    assert (finished.code, finished.out) == (2, "")
    (line,) = finished.err.splitlines()
    assert re.match(rf"fapm: .*{name} is installed but cannot be loaded: {REASON}; ", line)


@pytest.mark.parametrize("name", ["openvino", "cv2"])
def test_doctor_goes_on_with_a_broken_library(name: str, library: Library, tmp_path: Path) -> None:
    library(name, f"raise ImportError({REASON!r})")
    library("nncf", "raise RuntimeError('no')")  # spares the seconds of its import
    finished = run_process("doctor", PYTHONPATH=str(tmp_path))
    assert (finished.code, finished.err) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in finished.out.splitlines())
    line = facts[{"cv2": "opencv-python-headless"}.get(name, name)]
    assert f": {name} is installed but cannot be loaded: {REASON}; " in line
    assert {"precisions", "numpy", "torch", "nncf", "gpu", "encoder", "demo"} <= facts.keys()
    assert "cannot be loaded" not in facts["torch"]


def test_two_threads_import_quietly_at_once() -> None:
    """Both hide what would send telemetry, and neither takes it for the user's own."""
    program = (
        "import sys, threading, fapm.system.imports as i\n"
        "names = ['json.tool', 'xml.dom.minidom', 'wave', 'sqlite3', 'mailbox', 'netrc']\n"
        "ts = [threading.Thread(target=i.import_quietly, args=(n,)) for n in names]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]\n"
        "print('openvino_telemetry' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (said.stdout, said.stderr) == ("False\n", "")
