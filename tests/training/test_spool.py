"""The spool: what goes in comes out, from memory and from a file, and nothing is left behind."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest
import torch

import parts
from conftest import Refusal
from fapm import Detector
from fapm.config import Config
from fapm.errors import EncoderError, OutputError
from fapm.memory.geometry import cells_by_patch
from fapm.memory.patches import patch_vectors
from fapm.training import spool
from fapm.training.spool import Spool

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def always_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every fit uses a file; returns the folder it lies in."""
    folder = tmp_path / "room"
    folder.mkdir()
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 0)
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def batches(*sizes: int) -> list[list[torch.Tensor]]:
    """Features of batches of pictures, two layers, of values that float16 holds exactly."""
    generator = torch.Generator().manual_seed(0)
    return [
        [
            torch.randint(-100, 100, (size, channels, height, width), generator=generator) / 4
            for channels, height, width in ((3, 6, 5), (2, 2, 3))
        ]
        for size in sizes
    ]


@pytest.mark.parametrize("limit", [0, 10**9], ids=["file", "memory"])
@pytest.mark.parametrize("capacity", [7, 9], ids=["full", "two left out"])
@pytest.mark.parametrize("grid", [1, 3, 7])
def test_what_goes_in_comes_out(
    monkeypatch: pytest.MonkeyPatch, grid: int, capacity: int, limit: int
) -> None:
    monkeypatch.setattr(spool, "MEMORY_LIMIT", limit)
    given = batches(3, 3, 1)
    with Spool(capacity, grid) as features:
        for batch in given:
            features.append(batch)
        assert features.count == 7
        assert features.shapes == [(3, 6, 5), (2, 2, 3)]
        for number, (_, height, width) in enumerate(features.shapes):
            whole = torch.cat([batch[number] for batch in given])
            assert torch.equal(features.pictures(number, 0, 7), whole)
            assert torch.equal(features.pictures(number, 2, 5), whole[2:5])
            for patch, cells in enumerate(cells_by_patch(height, width, grid)):
                vectors = features.patch_vectors(number, patch)
                assert vectors.dtype == torch.float32
                assert torch.equal(vectors, patch_vectors(whole, cells))


def test_a_fit_through_a_file_is_a_fit(always_a_file: Path) -> None:
    pictures = [parts.part(number) for number in range(6)]
    config = Config.create(resize=64)
    through_file = Detector(config).fit(pictures)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "MEMORY_LIMIT", 10**9)
        in_memory = Detector(config).fit(pictures)
    assert through_file.threshold_ == pytest.approx(in_memory.threshold_, rel=0.01)
    defect = parts.part(50, hole=True)
    assert through_file.score(defect) == pytest.approx(in_memory.score(defect), rel=0.01)
    assert list(always_a_file.iterdir()) == []


def test_small_fits_need_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: pytest.fail("wrote a file"))
    with Spool(4, 3) as features:
        features.append(batches(4)[0])
    assert spool.file_bytes(320, [(40, 28, 28), (112, 14, 14)]) == 0
    assert spool.file_bytes(5000, [(40, 28, 28), (112, 14, 14)]) == 2 * 5000 * 53_312


@pytest.mark.usefixtures("always_a_file")
def test_pictures_are_handed_out_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_BYTES", 1000)
    with Spool(4, 3) as features:
        features.append(batches(4)[0])
        assert features.at_once == 2  # 102 float32 values each


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_behind(always_a_file: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), Spool(4, 3) as features:  # noqa: PT012
        features.append(batches(4)[0])
        if os.name == "posix":
            assert list(always_a_file.iterdir()) == []  # no name even now
        raise error
    del features
    gc.collect()
    assert list(always_a_file.iterdir()) == []


def test_no_room_is_said_before_the_work(
    always_a_file: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**6))
    good = parts.make_folder(tmp_path / "good", 5)
    line = refusal("fit", good, "--output", tmp_path / "x.fapm", "--resize", 64)
    assert line.startswith(f"{always_a_file}: the features of 5 pictures need 0.0 GB of room here")
    assert line.endswith("0.0 GB are free; set TMPDIR to a folder with more")


def test_a_tmpdir_that_cannot_be_used_is_named(
    always_a_file: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal, tmp_path: Path
) -> None:
    good = parts.make_folder(tmp_path / "good", 5)
    (always_a_file / "file").touch()
    for place in ("missing", "file"):
        where = always_a_file / place
        monkeypatch.setenv("TMPDIR", str(where))
        line = refusal("fit", good, "--output", tmp_path / "x.fapm", "--resize", 64)
        assert line.startswith(f"{where}: cannot keep the pictures' features in a file here: ")
        assert line.endswith("; set TMPDIR to another folder")


def test_a_tmpdir_without_permission_is_named(
    always_a_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    with pytest.raises(OutputError, match="Permission denied; set TMPDIR") as caught:
        Spool(4, 3).append(batches(4)[0])
    assert str(caught.value).startswith(f"{always_a_file}: ")


def test_a_disk_that_fills_up_while_writing(
    always_a_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spool, "_write_all", full)
    with (
        Spool(4, 3) as features,
        pytest.raises(OutputError, match="No space left on device; set TMPDIR"),
    ):
        features.append(batches(4)[0])


@pytest.mark.usefixtures("always_a_file")
def test_features_beyond_float16_are_refused_rather_than_cut() -> None:
    (large, small) = batches(1)[0]
    with Spool(1, 3) as features, pytest.raises(EncoderError, match="up to 1e"):
        features.append([large * 0 + 1e5, small])
