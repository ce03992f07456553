"""How a command ends: what is on stdout, what is on stderr, and with which exit code."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import parts
from conftest import Command, Finished
from fapm import Detector
from fapm.system.streams import plain

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")
FAPM = (sys.executable, "-m", "fapm")

# A bar, and results beside it.
BAR = """
import sys
from fapm.cli import console
with console.progress(False) as advance:
    for done in range(3):
        advance("inspect", done, 3)
        console.print_line(f"result {done}")
    console.remark(False, "a remark")
"""


def on_a_terminal(command: list[str], stdout: Path | None) -> bytes:
    """What a command says on a terminal that is its stderr, and its stdout where that is None."""
    terminal, its_end = os.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    with Path(os.devnull if stdout is None else stdout).open("wb") as file:
        out = its_end if stdout is None else file
        process = subprocess.Popen(command, stdout=out, stderr=its_end, env=environment)
    os.close(its_end)
    said = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # how Linux tells the end of a terminal
            data = b""
        if not data:
            break
        said += data
    assert process.wait(60) == 0
    os.close(terminal)
    return said


@posix
def test_results_stay_on_stdout_beside_a_progress_bar(tmp_path: Path) -> None:
    said = on_a_terminal([sys.executable, "-c", BAR], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "result 0\nresult 1\nresult 2\n"
    assert b"inspect" in said
    assert b"a remark" in said
    assert b"result" not in said


@posix
def test_results_and_bar_share_a_terminal() -> None:
    said = on_a_terminal([sys.executable, "-c", BAR], None)
    assert all(f"result {number}".encode() in said for number in range(3))


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_a_log_gets_no_bar(name: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", BAR],
        capture_output=True, text=True, check=True, env={**os.environ, name: "1"},
    )  # fmt: skip
    assert finished.stdout == "result 0\nresult 1\nresult 2\n"
    assert finished.stderr == "a remark\n"


@posix
def test_a_result_is_one_line_whatever_a_picture_is_called(
    run: Command, model: Path, tmp_path: Path
) -> None:
    parts.save(tmp_path / "new\nline\x1b[31m.png", parts.part(50))
    (tmp_path / "broken\r.png").write_bytes(b"no picture")
    finished = run("inspect", tmp_path, "-m", model, "-q")
    assert finished.out.count("\n") == 2
    assert "new\\nline\\x1b[31m.png" in finished.out
    assert "broken\\r.png: not a JPEG" in finished.out
    assert not {"\x1b", "\r"} & {*finished.out}
    finished = run("inspect", tmp_path / "new\nline\x1b[31m.png", "-m", tmp_path / "a\x1bb")
    assert finished.err == f"fapm: {tmp_path}/a\\x1bb: no such file; check the path\n"


def test_only_control_characters_are_escaped() -> None:
    assert plain("bücher 部品 🙂\u202f.png :smile: [b]") == "bücher 部品 🙂\u202f.png :smile: [b]"
    assert plain("\t\x07\x7f\x85\u2028") == r"\t\x07\x7f\x85\u2028"


def test_names_in_remarks_are_not_turned_into_pictures(capfd: pytest.CaptureFixture[str]) -> None:
    from fapm.cli import console

    console.warning(":smile: [b].png")
    assert capfd.readouterr().err == "warning: :smile: [b].png\n"


def shell(command: str, *arguments: object) -> Finished:
    """A command of a shell, in which ``"$@"`` are the words after ``fapm``."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    finished = subprocess.run(
        [bash, "-c", f"set -o pipefail; {command}", "bash", *FAPM, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Finished(finished.returncode, finished.stdout, finished.stderr)


@posix
@pytest.mark.parametrize(
    ("redirection", "words", "code", "complaint"),
    [
        ("> /dev/full", "inspect", 2, "No space left on device"),
        ("> /dev/full", "inspect --jsonl -", 2, "No space left on device"),
        ("> /dev/full", "info", 2, "No space left on device"),
        ("> /dev/full", "--help", 2, "No space left on device"),
        (">&-", "inspect --csv -", 2, "Bad file descriptor"),
        (">&-", "info", 2, "Bad file descriptor"),
        ("| true", "inspect", 141, ""),
        ("| true", "--help", 141, ""),
        ("2> /dev/full", "inspect", 0, ""),
        ("2>&-", "inspect", 0, ""),
    ],
)
def test_where_nothing_can_be_written(
    washers: Path, model: Path, redirection: str, words: str, code: int, complaint: str
) -> None:
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command, *options = words.split()
    given = {"inspect": [washers / "test", "-m", model], "info": [model]}.get(command, [])
    # What is read by nobody is written after the reader has ended.
    late = '(sleep 0.2; "$@")' if "|" in redirection else '"$@"'
    finished = shell(f"{late} {redirection}", command, *given, *options)
    assert finished.code == code, finished
    if complaint:
        assert finished.err == f"fapm: standard output: cannot write: {complaint}\n"
    assert "Traceback" not in finished.err
    assert ("Exception" in finished.err) is False
    if redirection.startswith("2"):
        assert len(finished.out.splitlines()) == 6


def test_what_nobody_expected_is_one_line_and_exit_code_70(
    run: Command, washers: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake\nin the program")

    monkeypatch.setattr(Detector, "stream", broken)
    command = ("inspect", washers / "test", "-m", model, "--fail-on-defect", "-q")
    with monkeypatch.context() as patched:
        patched.setattr("tempfile.tempdir", str(tmp_path))
        finished = run(*command)
    assert (finished.code, finished.out) == (70, "")
    (details,) = tmp_path.glob("fapm-error-*.txt")
    assert finished.err == (
        f"fapm: unexpected error: RuntimeError: a mistake in the program; details: {details}\n"
    )
    assert "Traceback" in details.read_text()
    with monkeypatch.context() as patched:
        patched.setattr("tempfile.tempdir", str(tmp_path / "missing"))
        finished = run(*command)
    assert finished.code == 70
    assert "Traceback" in finished.err
    assert finished.err.endswith("; details: above\n")


def test_a_full_folder_for_temporary_files_is_one_line(
    run: Command, washers: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Detector, "stream", full)
    finished = run("inspect", washers / "test", "-m", model)
    assert finished.code == 2
    assert "cannot write: No space left on device; make room" in finished.err


def test_an_export_to_a_full_disk_is_one_line(
    run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fapm.engines import openvino_engine as openvino

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino.ov, "save_model", full)
    finished = run("export", model, tmp_path / "out")
    assert (finished.code, finished.out) == (2, "")
    assert (
        "cannot be written: OpenVINO could not write model.xml; is the disk full?" in finished.err
    )
    assert list((tmp_path / "out").iterdir()) == []


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_leaves_the_results_so_far(model: Path, tmp_path: Path, name: str) -> None:
    many = tmp_path / "many"
    first = parts.save(many / "0000.png", parts.part(50))
    for number in range(1, 3000):
        (many / f"{number:04d}.png").symlink_to(first)
    out = tmp_path / "out"
    out.mkdir()
    words = ["inspect", many, "-m", model, "--jsonl", out / "r.jsonl", "--csv", out / "r.csv"]
    # A process that is started in the background may ignore Ctrl-C: this one must not.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; from fapm.cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words), "--drift", str(out / "drift")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not ((out / "r.jsonl").exists() and (out / "r.jsonl").stat().st_size):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(getattr(signal, name))
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    ended = "interrupted" if name == "SIGINT" else f"ended by {name}"
    assert said == f"fapm: {ended}; no unfinished file is left behind\n"
    assert sorted(path.name for path in out.iterdir()) == ["r.csv", "r.jsonl"]
    lines, rows = ((out / f"r.{kind}").read_text() for kind in ("jsonl", "csv"))
    assert lines.endswith("}\n")
    assert 0 < lines.count("\n") < 3000
    assert abs(rows.count("\n") - 1 - lines.count("\n")) <= 1


@posix
def test_nohup_is_heeded() -> None:
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from fapm.cli import ending\n"
        "ending.run(lambda: lambda: os.kill(os.getpid(), signal.SIGHUP))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["fapm", "fapm.cli.app"])
def test_python_runs_it_as_a_module(module: str) -> None:
    said = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("fapm ")
