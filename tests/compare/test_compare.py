"""``fapm compare``: a row for every method, whatever becomes of it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import parts
from conftest import Command, Refusal
from fapm.compare import registry as methods
from fapm.compare import running
from fapm.compare.on_encoder import Judged
from fapm.compare.setting import Setting
from fapm.config import Config
from fapm.datasets.loading import load_dataset
from fapm.engines import opening as engines
from fapm.engines.base import Runtime
from fapm.errors import ConfigError
from fapm.frames.layout import layout_of
from fapm.frames.preparation import Preparation

ANOMALIB = ("cflow", "anomalib-patchcore", "anomalib-padim")
FIGURES = ("image_auroc", "pixel_auroc", "aupro", "fit_seconds", "inspect_ms", "memory_mb")


def rows_of(text: str) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in json.loads(text)["rows"]}


@pytest.mark.slow
def test_ours_and_the_three_beside_it(run: Command, washers: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / f"rows.{kind}" for kind in ("json", "csv", "markdown")}
    targets = [word for kind, file in files.items() for word in (f"--{kind}", file)]
    finished = run("compare", washers, "--resize", 64, "--quiet", *targets)
    assert (finished.code, finished.err) == (0, "")
    written = json.loads(files["json"].read_text())
    rows = {row["method"]: row for row in written["rows"]}
    assert tuple(rows) == methods.DEFAULT
    for row in rows.values():
        assert row["status"] == "measured", row
        assert all(row[figure] > 0 for figure in FIGURES)
        assert row["image_auroc"] == 1
        assert row["pixel_auroc"] > 0.98
        assert row["aupro"] > 0.9
    assert (written["dataset"], written["n_train"], written["n_test"]) == ("washer", 12, 6)
    assert written["config"]["resize"] == 64

    # Four ways to say the same.
    assert finished.out == files["markdown"].read_text()
    lines = finished.out.splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == list(rows)
    assert len({len(line) for line in lines}) == 1
    with files["csv"].open(newline="") as file:
        for line, row in zip(csv.DictReader(file), rows.values(), strict=True):
            assert line == {name: "" if v is None else str(v) for name, v in row.items()}


def test_ours_is_what_evaluate_finds(run: Command, washers: Path) -> None:
    knobs = ("--resize", 64, "--grid", 2, "--ratio", 0.05, "--quiet", "--json", "-")
    row = rows_of(run("compare", washers, "--methods", "fapm", *knobs).out)["fapm"]
    found = json.loads(run("evaluate", washers, *knobs).out)
    for figure in ("image_auroc", "pixel_auroc", "aupro"):
        assert row[figure] == pytest.approx(found[figure], abs=1e-9)


def test_without_masks_there_are_image_figures_only(run: Command, tmp_path: Path) -> None:
    data = parts.make_mvtec(tmp_path / "washer", masks=False)
    arguments = ("--methods", "padim", "--resize", 64, "--quiet", "--json", "-")
    row = rows_of(run("compare", data, *arguments).out)["padim"]
    assert row["image_auroc"] == 1
    assert (row["pixel_auroc"], row["aupro"]) == (None, None)


def test_broken_pictures_are_left_out_for_all(run: Command, washers: Path, tmp_path: Path) -> None:
    data = tmp_path / "washer"
    shutil.copytree(washers, data)
    for broken in ("train/good/000.png", "test/hole/000.png"):
        (data / broken).write_bytes(b"nothing")
    finished = run("compare", data, "--methods", "padim", "--resize", 64, "--json", "-")
    written = json.loads(finished.out)
    assert (written["n_train"], written["n_test"]) == (11, 5)
    assert written["rows"][0]["status"] == "measured"
    left_out = [line for line in finished.err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 2


def test_anomalib_s_are_rows_where_it_is_absent(
    run: Command, washers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engines.installed
    monkeypatch.setattr(methods, "installed", lambda name: name != "anomalib" and real(name))
    finished = run("compare", washers, "--methods", ",".join(ANOMALIB), "--quiet")
    assert (finished.code, finished.err) == (0, "")
    lines = finished.out.splitlines()[2:]
    assert len(lines) == len(ANOMALIB)
    for line in lines:
        assert "failed: anomalib is not installed; type: pip install 'fapm[anomalib]'" in line


@pytest.mark.slow
@pytest.mark.skipif(find_spec("anomalib") is None, reason="anomalib is not installed")
def test_anomalib_s_methods_have_our_weights(run: Command, washers: Path) -> None:
    arguments = ("--methods", ",".join(ANOMALIB), "--resize", 64, "--quiet", "--json", "-")
    rows = rows_of(run("compare", washers, *arguments).out)
    assert tuple(rows) == ANOMALIB
    for row in rows.values():
        assert row["status"] == "measured", row
        assert row["image_auroc"] == 1
        assert row["pixel_auroc"] > 0.98
    assert "5 epochs only" in rows["cflow"]["note"]


def test_published_figures_say_what_they_are(run: Command, washers: Path) -> None:
    finished = run("compare", washers, "--methods", "differnet,patchsvdd", "--quiet", "--json", "-")
    rows = rows_of(finished.out)
    assert (rows["differnet"]["image_auroc"], rows["patchsvdd"]["pixel_auroc"]) == (0.949, 0.957)
    for row in rows.values():
        assert row["status"] == "published"
        assert "published, not run" in row["note"]
        assert row["fit_seconds"] is row["inspect_ms"] is None


class Stub:
    """A method that does as it is told. At module level, since processes are given it by name."""

    note = "stub"
    memory_bytes = 2_000_000

    def __init__(self, setting: Setting) -> None:
        self.preparation = Preparation(layout_of(setting.config), "bicubic")

    def fit(self, pictures: Sequence[Path]) -> None:
        time.sleep(0.05)

    def score(self, frames: Sequence[NDArray[np.uint8]]) -> Judged:
        """The hole is bright."""
        maps = np.stack([frame.mean(axis=2) for frame in frames]).astype(np.float32)
        return Judged(maps.mean(axis=(1, 2)), maps)


class Raising(Stub):
    def fit(self, pictures: Sequence[Path]) -> None:
        raise RuntimeError("first line\n  second line")


class Refusing(Stub):
    def fit(self, pictures: Sequence[Path]) -> None:
        raise ConfigError("resize: too much")


class Dying(Stub):
    def fit(self, pictures: Sequence[Path]) -> None:
        os._exit(7)


class Sleeping(Stub):
    def fit(self, pictures: Sequence[Path]) -> None:
        time.sleep(3600)


@pytest.fixture
def task(washers: Path) -> running.Task:
    data = load_dataset(washers)
    setting = Setting(Config.create(resize=64), Runtime(), 10**6)
    return running.Task(setting, tuple(s.path for s in data.train), data.test)


def test_what_is_measured(task: running.Task) -> None:
    row = running.measure("stub", Stub, task)
    assert (row.method, row.status, row.note) == ("stub", "measured", "stub")
    assert row.image_auroc == 1
    assert row.pixel_auroc is not None
    assert row.pixel_auroc > 0.99
    assert row.fit_seconds is not None
    assert row.fit_seconds >= 0.05
    assert row.memory_mb == 2


@pytest.mark.parametrize("knobs", [{"align": "shift"}, {"light": "gain"}, {"tile": 32}], ids=str)
def test_methods_take_the_frames_that_fapm_takes(washers: Path, knobs: dict[str, Any]) -> None:
    data = load_dataset(washers)
    size = {} if "tile" in knobs else {"resize": 64}
    setting = Setting(Config.create(**size, **knobs), Runtime(), 10**6)
    task = running.Task(setting, tuple(s.path for s in data.train), data.test)
    for name in ("fapm", "padim"):
        method = methods.BUILDERS[name](setting)
        row = running.measure(name, lambda _, method=method: method, task)
        assert (row.status, row.image_auroc) == ("measured", 1)
        assert row.pixel_auroc is not None
        assert row.pixel_auroc > 0.95
        assert [stage.name for stage in method.preparation.stages] == [*knobs.keys() - {"tile"}]
        assert (method.preparation.layout.tiles > 1) == ("tile" in knobs)


def test_a_method_that_goes_wrong_is_a_row_and_the_rest_go_on(
    task: running.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in its own process, as always."""
    builders = {"raises": Raising, "refuses": Refusing, "dies": Dying, "works": Stub}
    monkeypatch.setattr(running, "BUILDERS", builders)
    rows = {row.method: row for row in running.compare(tuple(builders), task)}
    notes = {name: row.note for name, row in rows.items() if row.status == "failed"}
    assert notes == {
        "raises": "RuntimeError: first line second line",
        "refuses": "resize: too much",
        "dies": "its process ended with exit code 7 (out of memory?)",
    }
    assert rows["works"].image_auroc == 1


def test_a_method_out_of_time_is_ended(task: running.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BUILDERS", {"sleeps": Sleeping})
    (row,) = running.compare(["sleeps"], task, timeout=0.2)
    assert (row.status, row.note) == ("failed", "not done after 0.2 s (--timeout)")


def test_what_cannot_be_followed_is_refused(
    refusal: Refusal, washers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "compare", lambda *_, **__: pytest.fail("worked for nothing"))
    known = ", ".join(methods.KNOWN)
    assert refusal("compare", washers, "--methods", "fapm,yolo") == (
        f"methods: unknown 'yolo'; choose among {known}"
    )
    assert refusal("compare", washers, "--methods", ", ") == (
        f"methods: none named; choose among {known}"
    )
    assert "timeout: 0 is not above 0" in refusal("compare", washers, "--timeout", 0)
    assert "no good training pictures" not in refusal("compare", tmp_path / "absent")
    for target in ("--json", "--csv", "--markdown"):
        assert "no such directory" in refusal("compare", washers, target, tmp_path / "no" / "file")
    only_good = parts.make_folder(tmp_path / "parts", 3)
    assert "no test pictures" in refusal("compare", only_good, "--quiet")


def test_without_torch_it_says_what_to_install(
    refusal: Refusal, washers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fapm.cli.studies.compare.installed", lambda name: name != "timm")
    assert refusal("compare", washers) == (
        "compare: timm is not installed; type: pip install 'fapm[fit]'"
    )
