from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

# First: it has torch's threads wait passively, as long as torch is not imported yet.
import fapm  # noqa: F401  # isort: skip

import parts
import stripes
from fapm import Detector
from fapm.cli import app as cli


@dataclass(frozen=True)
class Finished:
    """What a command left: its exit code and all it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Finished]
Refusal = Callable[..., str]


def run_process(*arguments: object, **environment: str) -> Finished:
    """``fapm`` as installed, in a process of its own."""
    script = shutil.which("fapm", path=str(Path(sys.executable).parent))
    assert script is not None
    finished = subprocess.run(
        [script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """``fapm`` from its entry point to its exit code, in this process: torch is imported once."""

    def command(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["fapm", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Finished(int(ended.value.code or 0), out, err)

    return command


@pytest.fixture
def refusal(run: Command, tmp_path: Path) -> Refusal:
    """What a command says that refuses its input: one line, and no half-written file."""

    def command(*arguments: object) -> str:
        finished = run(*arguments)
        assert (finished.code, finished.out) == (2, "")
        assert list(tmp_path.rglob(".fapm-*.tmp")) == []
        (line,) = finished.err.splitlines()
        assert line.startswith("fapm: ")
        return line.removeprefix("fapm: ")

    return command


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return parts.make_folder(tmp_path / "good", 6)


@pytest.fixture(scope="session")
def washers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with masks; tests do not change it."""
    return parts.make_mvtec(tmp_path_factory.mktemp("data") / "washer")


@pytest.fixture(scope="session")
def fitted(washers: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A bundle of that data set's good parts, and what ``fapm fit`` said."""
    output = tmp_path_factory.mktemp("bundle") / "washer.fapm"
    finished = run_process("fit", washers / "train" / "good", "--output", output, "--resize", 64)
    assert finished.code == 0, finished.err
    return output, finished


@pytest.fixture(scope="session")
def model(fitted: tuple[Path, Finished]) -> Path:
    return fitted[0]


# Detectors of striped parts


@pytest.fixture(scope="session")
def detector() -> Detector:
    return stripes.fitted(stripes.good_pictures())


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as files, without loss, and in the order of their names."""
    folder = tmp_path_factory.mktemp("good")
    for number, picture in enumerate(stripes.good_pictures()):
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def bundle(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "part.fapm"
    detector.save(path)
    return path
