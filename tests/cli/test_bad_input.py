"""Bad pictures and bundles through the command line: one clear line and exit code 2."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import parts
from conftest import Command, Refusal
from fapm.bundle import archive

BAD_PICTURES = ("cut.png", "empty.png", "pixel.png", "text.png")


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A folder of pictures that cannot be used, each for a reason of its own."""
    folder = tmp_path / "bad"
    cut = parts.save(folder / "cut.png", parts.part(0))
    cut.write_bytes(cut.read_bytes()[:-2000])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not a picture")
    parts.save(folder / "pixel.png", np.zeros((1, 1, 3), np.uint8))
    return folder


def commands(source: Path, model: Path, output: Path) -> list[tuple[object, ...]]:
    """Every way to give a folder or picture to the command line."""
    return [
        ("fit", source, "--output", output),
        ("inspect", source, "--model", model),
        ("evaluate", source, "--model", model),
    ]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (None, "no such file or folder"),
        ([], "the folder is empty"),
        (["readme.txt", "list.docx"], "no picture among 2 files"),
    ],
    ids=["missing", "empty", "without pictures"],
)
def test_a_folder_without_pictures(
    refusal: Refusal, model: Path, tmp_path: Path, files: list[str] | None,
    complaint: str,
) -> None:  # fmt: skip
    folder, output = tmp_path / "folder", tmp_path / "x.fapm"
    if files is not None:
        folder.mkdir()
        for name in files:
            (folder / name).touch()
    for arguments in commands(folder, model, output):
        assert refusal(*arguments).startswith(f"{folder}: {complaint}")
    assert not output.exists()


def test_bad_pictures_are_reported_and_the_batch_goes_on(
    run: Command, model: Path, good: Path, bad: Path
) -> None:
    finished = run("inspect", good, bad, "--model", model, "--jsonl", "-")
    assert finished.code == 0
    assert "0 defect, 4 failed" in finished.err
    records = [json.loads(line) for line in finished.out.splitlines()]
    assert [record["verdict"] for record in records] == ["good"] * 6 + ["failed"] * 4
    for record, name in zip(records[6:], BAD_PICTURES, strict=True):
        assert record["source"] == str(bad / name)
        assert record["error"].startswith(f"{bad / name}: ")

    table = run("inspect", bad / "text.png", good, "--model", model, "--csv", "-")
    assert table.out.splitlines()[1].startswith(f"{bad / 'text.png'},failed,,")


def test_bad_pictures_are_left_out_of_a_fit(
    run: Command, good: Path, bad: Path, tmp_path: Path
) -> None:
    output = tmp_path / "x.fapm"
    finished = run("fit", good, bad, "--output", output, "--resize", 64)
    assert finished.code == 0
    for name in BAD_PICTURES:
        assert f"note: left out of fit: bad/{name}: " in finished.err
    assert "pictures     6, 4 left out\n" in run("info", output).out


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("cut.png", "damaged or cut off"),
        ("empty.png", "the file is empty (0 bytes)"),
        ("pixel.png", "1 x 1 is too small"),
        ("text.png", "not a JPEG, PNG, BMP, TIFF or WebP picture"),
    ],
)
def test_bad_pictures_alone_are_refused(
    refusal: Refusal, run: Command, model: Path, bad: Path, tmp_path: Path, name: str,
    complaint: str,
) -> None:  # fmt: skip
    output = tmp_path / "x.fapm"
    assert f"{name}: {complaint}" in refusal("fit", bad / name, "--output", output)
    assert not output.exists()
    finished = run("inspect", bad / name, "--model", model, "--jsonl", output)
    assert finished.code == 2
    assert f"fapm: none of 1 picture could be inspected; the first: {bad / name}" in finished.err


def test_evaluate_counts_pictures_and_masks_that_cannot_be_read(
    run: Command, model: Path, tmp_path: Path
) -> None:
    root = parts.make_mvtec(tmp_path / "washer")
    picture, mask = root / "test/good/000.png", root / "ground_truth/hole/001_mask.png"
    picture.write_bytes(b"")
    mask.write_text("not a mask")
    finished = run("evaluate", root, "--model", model, "--json", "-")
    assert finished.code == 0
    figures = json.loads(finished.out)
    assert [failure["source"] for failure in figures["failed"]] == [str(picture), str(mask)]
    assert (figures["passed"], figures["caught"]) == (2, 3)
    assert f"failed: {mask}: not a " in finished.err

    for path in root.glob("test/*/*.png"):
        path.write_bytes(b"")
    report = tmp_path / "report"
    finished = run("evaluate", root, "--model", model, "--report", report, "--json", "-")
    assert finished.code == 2
    assert "fapm: none of 6 pictures could be inspected; the first: " in finished.err
    assert json.loads(finished.out)["inspect_ms_median"] is None
    assert (report / "report.html").is_file()


@pytest.mark.slow
def test_a_decompression_bomb_is_not_decoded(
    refusal: Refusal, run: Command, model: Path, tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    complaint = "20000 x 20000 is 400,000,000 pixels, the limit is 200,000,000"
    line = refusal("fit", bomb, "--output", tmp_path / "x.fapm")
    assert f"bomb.png: {complaint}" in line
    assert "raise it with --max-pixels 400000000" in line
    assert complaint in run("inspect", bomb, "--model", model).err


def test_the_limit_on_pixels_can_be_moved(
    run: Command, model: Path, good: Path, tmp_path: Path
) -> None:
    root = parts.make_mvtec(tmp_path / "washer")
    for arguments in (
        ("fit", good, "--output", tmp_path / "x.fapm", "--resize", 64),
        ("inspect", good, "--model", model),
        ("evaluate", root, "--model", model),
    ):
        assert run(*arguments, "--max-pixels", 64 * 64).code == 0
        refused = run(*arguments, "--max-pixels", 64 * 64 - 1)
        assert refused.code == 2
        assert "64 x 64 is 4,096 pixels, the limit is 4,095" in refused.err


def test_pictures_of_mixed_sizes_and_modes_work(run: Command, tmp_path: Path) -> None:
    folder, output = parts.make_folder(tmp_path / "mixed", 4), tmp_path / "mixed.fapm"
    picture = Image.fromarray(parts.part(9))
    picture.resize((200, 31)).save(folder / "wide.jpg")
    picture.convert("L").resize((3, 90)).save(folder / "tall.bmp")
    assert run("fit", folder, "--output", output, "--resize", 64).code == 0
    assert run("inspect", folder, "--model", output, "--overlays", tmp_path / "maps").code == 0
    with Image.open(tmp_path / "maps" / "wide.png") as painted:
        assert painted.size == (200, 31)


def test_a_mask_without_a_picture_is_remarked(run: Command, model: Path, tmp_path: Path) -> None:
    root = parts.make_mvtec(tmp_path / "washer")
    (root / "test" / "hole" / "001.png").unlink()
    finished = run("evaluate", root, "--model", model, "--json", "-")
    assert finished.code == 0
    mask = root / "ground_truth" / "hole" / "001_mask.png"
    assert f"warning: 1 mask without a picture, e.g. {mask}\n" in finished.err
    assert json.loads(finished.out)["caught"] == 2


def _text(path: Path, model: Path) -> None:
    path.write_text("not a bundle")


def _zip(path: Path, model: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.write(model, "model.fapm")


def _pickle(path: Path, model: Path) -> None:
    path.write_bytes(pickle.dumps({"memory": [1.0, 2.0]}))


def _cut_off(path: Path, model: Path) -> None:
    path.write_bytes(model.read_bytes()[:-1000])


def _flipped(where: float) -> Callable[[Path, Path], None]:
    def damage(path: Path, model: Path) -> None:
        data = bytearray(model.read_bytes())
        data[int(where * (len(data) - 1))] ^= 1
        path.write_bytes(data)

    return damage


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda path, model: None, "no such file"),
        (lambda path, model: path.mkdir(), "not a file, so not a fapm bundle"),
        (lambda path, model: path.touch(), "an empty file, not a fapm bundle"),
        (_text, "not a fapm bundle"),
        (_zip, "a ZIP file, but not a fapm bundle"),
        (_pickle, "not a fapm bundle"),
        (_cut_off, "damaged bundle: cut off"),
        (_flipped(0.01), "damaged bundle"),
        (_flipped(0.5), "damaged bundle"),
        (_flipped(1), "damaged bundle"),
    ],
    ids=["missing", "folder", "empty", "text", "zip", "pickle", "cut off", "flipped at the start",
         "flipped in the middle", "flipped at the end"],
)  # fmt: skip
def test_a_wrong_or_damaged_bundle(
    refusal: Refusal, model: Path, washers: Path, tmp_path: Path,
    spoil: Callable[[Path, Path], None], complaint: str,
) -> None:  # fmt: skip
    path, result = tmp_path / "spoilt.fapm", tmp_path / "result"
    spoil(path, model)
    for arguments in (
        ("info", path),
        ("inspect", washers / "test", "--model", path, "--jsonl", result),
        ("evaluate", washers, "--model", path, "--json", result, "--quiet"),
    ):
        assert refusal(*arguments).startswith(f"{path}: {complaint}")
    assert not result.exists()


def test_a_bundle_of_a_newer_format(
    refusal: Refusal, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, contents = archive.read_archive(model)
    with monkeypatch.context() as future:
        future.setattr(archive, "FORMAT_VERSION", archive.FORMAT_VERSION + 1)
        archive.write_archive(tmp_path / "newer.fapm", manifest, contents)
    assert "needs a newer fapm" in refusal("info", tmp_path / "newer.fapm")
