"""Commands that cannot be followed: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fapm
from conftest import Command, Refusal


def _in_missing_folder(root: Path) -> tuple[Path, str]:
    return root / "missing" / "file", f"no such directory: {root / 'missing'}"


def _a_folder(root: Path) -> tuple[Path, str]:
    (root / "folder").mkdir()
    return root / "folder", "cannot write: is a directory"


def _below_a_file(root: Path) -> tuple[Path, str]:
    (root / "file").touch()
    return root / "file" / "file", f"no such directory: {root / 'file'}"


@pytest.mark.parametrize("place", [_in_missing_folder, _a_folder, _below_a_file])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    refusal: Refusal, washers: Path, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, place: Callable[[Path], tuple[Path, str]],
) -> None:  # fmt: skip
    monkeypatch.setattr(fapm.Detector, "fit", lambda *_, **__: pytest.fail("worked for nothing"))
    monkeypatch.setattr(fapm.Detector, "stream", lambda *_, **__: pytest.fail("worked for nothing"))
    path, complaint = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for arguments in (
        ("fit", washers, "--output", path),
        ("inspect", washers / "test", "--model", model, "--jsonl", path),
        ("inspect", washers / "test", "--model", model, "--csv", path),
        ("evaluate", washers, "--json", path),
    ):
        assert refusal(*arguments).startswith(f"{path}: {complaint}")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(
    refusal: Refusal, washers: Path, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fapm.Detector, "stream", lambda *_, **__: pytest.fail("worked for nothing"))
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        for arguments in (
            ("inspect", washers / "test", "--model", model, "--overlays", path),
            ("inspect", washers / "test", "--model", model, "--report", path),
            ("evaluate", washers, "--model", model, "--report", path),
        ):
            assert refusal(*arguments).startswith(f"{path}: cannot create: ")


def test_a_full_disk_leaves_the_old_bundle(
    run: Command, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = tmp_path / "x.fapm"
    output.write_text("the bundle of last week")
    monkeypatch.setattr(os, "fsync", full)
    finished = run("fit", good, "--output", output, "--resize", 64)
    assert (finished.code, finished.out) == (2, "")
    assert f"fapm: {output}: cannot write: No space left on device\n" in finished.err
    assert output.read_text() == "the bundle of last week"
    assert list(tmp_path.rglob(".fapm-*.tmp")) == []


def test_overlays_do_not_replace_the_pictures_they_show(
    refusal: Refusal, model: Path, good: Path
) -> None:
    before = {path: path.read_bytes() for path in good.iterdir()}
    line = refusal("inspect", good, "--model", model, "--overlays", good)
    assert line.startswith(f"{good}: holds pictures to inspect")
    assert {path: path.read_bytes() for path in good.iterdir()} == before


def test_two_kinds_of_results_do_not_share_a_target(
    refusal: Refusal, model: Path, good: Path, tmp_path: Path
) -> None:
    for target in ("-", tmp_path / "results"):
        line = refusal("inspect", good, "--model", model, "--jsonl", target, "--csv", target)
        assert line.startswith(f"--jsonl and --csv both go to {target}")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--preset", "nope"], "preset: unknown 'nope'; choose one of fast, accurate, paper"),
        (["--sampling", "nope"], "sampling: 'nope' is not valid"),
        (["--ratio", "0"], "ratio: 0.0 is not valid, it should be greater than 0"),
        (["--resize", "31"], "resize: 31 is not valid"),
        (["--crop", "300"], "crop: 300 is larger than resize 224"),
        (["--encoder", "resnet5000"], "encoder: timm knows no model 'resnet5000'; did you mean"),
        (["--layers", "nope"], "layers: efficientnet_lite0 has no layer 'nope'; it has blocks.0"),
        (["--weights", "nope.pth"], "weights: no such file nope.pth"),
    ],
    ids=lambda value: "".join(value[:1]) if isinstance(value, list) else "",
)
def test_unknown_and_contradictory_values(
    refusal: Refusal, good: Path, tmp_path: Path, words: list[str], complaint: str
) -> None:
    output = tmp_path / "x.fapm"
    assert refusal("fit", good, "--output", output, *words).startswith(complaint)
    assert not output.exists()


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["fitt"], "fitt"),
        (["fit"], "good"),
        (["fit", "x"], "--output"),
        (["fit", "x", "-o", "y", "--ratio", "a lot"], "--ratio"),
        (["fit", "x", "-o", "y", "--max-pixels", "0"], "--max-pixels"),
        (["fit", "x", "-o", "y", "--rato", "0.1"], "--rato"),
        (["inspect", "x"], "--model"),
        (["info"], "model"),
    ],
    ids=" ".join,
)
def test_mistakes_in_typing_name_the_culprit(run: Command, words: list[str], culprit: str) -> None:
    finished = run(*words)
    assert (finished.code, finished.out) == (2, "")
    assert culprit in finished.err.splitlines()[-1]


def test_data_sets_that_cannot_be_judged(
    refusal: Refusal, model: Path, washers: Path, good: Path
) -> None:
    line = refusal("evaluate", washers, "--layout", "nope")
    assert line.startswith("layout: unknown 'nope'; choose one of auto, folder, mvtec")
    line = refusal("evaluate", good)
    assert line.startswith(f"{good}: no test pictures in this folder layout")
    assert "fapm inspect SOURCE --model BUNDLE" in line
    line = refusal("evaluate", washers.parent)
    assert line.endswith("choose one, e.g. --category washer")
    line = refusal("evaluate", washers.parent, "--category", "nut")
    assert line == f"{washers.parent}: no category 'nut'; categories here: washer"
    line = refusal("evaluate", washers, "--model", model, "--resize", 96)
    assert line.startswith("--model: a bundle brings its own settings")


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_fit(good: Path, tmp_path: Path) -> None:
    pytest.importorskip("pty", reason="needs a terminal to watch the progress bar on")
    output = tmp_path / "x.fapm"
    output.write_text("the bundle of last week")
    # A process that is started in the background ignores Ctrl-C: this one must not.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; from fapm.cli.app import main; main()"
    many = [str(good)] * 60  # 360 pictures: seconds of work
    terminal, its_end = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code, "fit", *many, "-o", str(output)],
        stdout=subprocess.PIPE,
        stderr=its_end,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(its_end)
        said = _read_until(terminal, b"encode")
        process.send_signal(signal.SIGINT)
        said += _read_until(terminal, None)
        out, _ = process.communicate()
    os.close(terminal)
    assert (process.returncode, out) == (2, "")
    assert b"memorise" not in said
    assert b"Traceback" not in said
    assert said.count(b"fapm: ") == 1
    assert said.endswith(b"fapm: interrupted; no unfinished file is left behind\r\n")
    assert output.read_text() == "the bundle of last week"
    assert list(tmp_path.rglob(".fapm-*.tmp")) == []


def _read_until(terminal: int, word: bytes | None) -> bytes:
    """What a process prints on its terminal, up to ``word`` or its end."""
    said = b""
    while word is None or word not in said:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # how Linux tells the end of a terminal
            data = b""
        if not data:
            assert word is None, said.decode(errors="replace")
            break
        said += data
    return said


def test_aligned_frames_are_audited_and_not_exported(
    run: Command, refusal: Refusal, washers: Path, tmp_path: Path
) -> None:
    good = washers / "train" / "good"
    audited = run("audit", good, "--resize", 64, "--align", "rigid", "--quiet")
    assert (audited.code, len(audited.out.splitlines())) == (0, 12)
    model = tmp_path / "aligned.fapm"
    fapm.fit(good, resize=64, align="shift").save(model)
    assert refusal("export", model, tmp_path / "out") == (
        "align: export writes the graph, which begins at the finished frame; leave it out and fit "
        "again"
    )
    assert not (tmp_path / "out").exists()
