"""A folder is learnt only if nothing below it says that not all of it is good."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import parts
from fapm import Detector
from fapm.config import Config
from fapm.datasets.training import training_pictures
from fapm.errors import DatasetError


def fill(root: Path, *names: str) -> Path:
    """Files that all differ; that they are no pictures matters to nobody here."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


# What is below the folder; what the refusal says is to be named instead; an empty text: nothing.
MIXED = {
    "two categories": (("a/train/good/0.png", "a/test/x/0.png", "b/train/good/0.png"), "a"),
    "unpacked twice": (("bottle/train/good/0.png", "bottle/test/x/0.png"), "bottle"),
    "deeper": (("x/bottle/train/good/0.png", "x/bottle/test/x/0.png"), "x/bottle/train/good"),
    "good and bad": (("good/0.png", "bad/0.png"), "good"),
    "anomalib": (("normal/0.png", "abnormal/0.png", "mask/0.png"), "normal"),
    "VisA": (("Data/Images/Normal/0.JPG", "Data/Images/Anomaly/1.JPG"), "Data/Images/Normal"),
    "Real-IAD": (("OK/S1/0.jpg", "NG/BX/S1/1.jpg", "NG/BX/S1/1_mask.png"), "OK"),
    "DAGM": (("Class1/Train/0.PNG", "Class1/Test/1.PNG", "Class1/Test/Label/1_label.PNG"), ""),
    "KolektorSDD": (("kos01/Part0.jpg", "kos01/Part0_label.bmp"), ""),
    "KolektorSDD2": (("train/1.png", "train/1_GT.png", "test/2.png", "test/2_GT.png"), ""),
    "MVTec 3D": (("train/good/rgb/0.png", "train/good/xyz/0.tiff"), ""),
    "Severstal": (("train_images/0.jpg", "test_images/1.jpg"), ""),
    "casting": (("ok_front/0.jpg", "def_front/1.jpg"), ""),
    "German": (("gut/0.png", "schlecht/1.png"), "gut"),
    "i.O.": (("i.O./0.png", "n.i.O./1.png"), "i.O."),
    "numbered": (("camera1/01_OK/0.png", "camera1/02_NG/1.png"), "camera1/01_OK"),
    "capitals": (("PASS/0.png", "FAIL/1.png"), "PASS"),
    "a kind of defect": (("good/0.png", "scratch/1.png"), "good"),
    "reviewed": (("true_good/0.png", "false_good/1.png"), "true_good"),
    "masks by format": (("img/0.jpg", "json_masks/0.png"), ""),
    "rejects beside": (("0.png", "rejects/1.png"), ""),
    "unsorted beside": (("0.png", "good/1.png"), "good"),
    "positive": (("positive/0.png", "negative/1.png"), ""),
    "masks beside": (("0.png", "0_mask.png", "1.png"), ""),
    "numbered masks": (("0.png", "0-Mask-1.bmp"), ""),
    "masks in front": (("0.png", "mask_0.png"), ""),
    "our own maps": (("0.png", "overlays/0.png"), ""),
    "named by verdict": (("good_1.png", "bad_2.png"), ""),
}


@pytest.mark.parametrize("case", MIXED)
def test_what_is_not_all_good_is_refused_with_the_folder_to_name(case: str, tmp_path: Path) -> None:
    names, better = MIXED[case]
    root = fill(tmp_path / "parts", *names)
    with pytest.raises(DatasetError) as caught:
        training_pictures(root)
    line = str(caught.value)
    assert line.startswith(str(root))
    assert "\n" not in line
    assert (f"e.g. {root / better}" in line) is bool(better)
    if better:
        assert training_pictures(root / better).pictures


HARMLESS = {
    "copied by Windows": ("good/0.png", "good - Copy/1.png", "good (2)/2.png"),
    "days": ("days/monday/0.png", "days/tuesday/1.png"),
    "cameras": ("camera1/0.png", "camera2/0.png", "batch_01/2.png", "Frühschicht/1.png", "3.png"),
    "words in file names": ("label_printer_01.png", "test_0001.png", "mask_1.png", "cap_label.png"),
    "words in folder names": ("label_machine/0.png", "test_rig/0.png", "normal_shift/0.png"),
    "good ones only": ("2024/good/0.png", "2025/good/1.png"),
    "two passes": ("pass1/0.png", "pass2/1.png"),
    "labels that are text": ("0.png", "labels/0.txt"),
    "one word": ("ok_1.png", "ok_2.png"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_ordinary_folders_are_taken_whole(case: str, tmp_path: Path) -> None:
    root = fill(tmp_path, *HARMLESS[case])
    taken = training_pictures(root)
    assert len(taken.pictures) == sum(not name.endswith(".txt") for name in HARMLESS[case])
    assert len(taken.lines) <= 3


def test_the_folders_taken_are_named(tmp_path: Path) -> None:
    root = fill(tmp_path, *(f"day{day}/{i}.png" for day in range(7) for i in range(2)), "x.png")
    assert training_pictures(root).lines == (
        "taken from the folders day0 (2), day1 (2), day2 (2), day3 (2), day4 (2) and 3 more",
    )
    (line,) = training_pictures([root / "day0", str(root / "day1")]).lines
    assert line == "taken from the folders day0 (2), day1 (2)"


def test_a_folder_that_is_named_is_meant(tmp_path: Path) -> None:
    fill(tmp_path, "good/0.png", "bad/0.png", "bad/1.png")
    assert training_pictures(tmp_path / "good").lines == ()
    assert len(training_pictures(tmp_path / "bad").pictures) == 2
    both = training_pictures(sorted(tmp_path.iterdir()))
    assert len(both.pictures) == 3
    assert both.lines[1] == "learnt as good, though not called so: bad"


def test_files_that_are_named_are_taken_but_it_is_said(tmp_path: Path) -> None:
    fill(tmp_path, "0.png", "0_mask.png", "1.png")
    taken = training_pictures(sorted(tmp_path.iterdir()))
    assert len(taken.pictures) == 3
    assert taken.lines == ("learnt as good, though not called so: 0_mask.png",)


@pytest.mark.parametrize("spelling", [str.lower, str.title, str.upper])
def test_a_data_set_in_any_case_of_letters(spelling: object, tmp_path: Path) -> None:
    names = ("train/good", "test/good", "test/scratch", "ground_truth/scratch")
    folders = [spelling(name) for name in names]  # type: ignore[operator]
    fill(tmp_path, *(f"{folder}/{n}.png" for n, folder in enumerate(folders)))
    taken = training_pictures(tmp_path)
    assert taken.pictures == (tmp_path / folders[0] / "0.png",)
    assert taken.lines[0].startswith("MVTec layout: 1 training picture, 2 test pictures (1 defect,")


def test_a_mask_of_the_same_name_in_another_format(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[parts.HOLE] = 255
    parts.save(tmp_path / "MT_Free" / "0.jpg", parts.part(0))
    parts.save(tmp_path / "MT_Free" / "0.png", parts.part(0))
    assert len(training_pictures(tmp_path).pictures) == 2
    Image.fromarray(mask).save(tmp_path / "MT_Free" / "0.png")
    with pytest.raises(DatasetError, match=r"0\.png looks like the mask of the picture beside it"):
        training_pictures(tmp_path)


def test_a_picture_counts_once_by_whatever_paths_it_is_reached(tmp_path: Path) -> None:
    fill(tmp_path, "parts/0.png", "parts/1.png")
    (tmp_path / "parts" / "2.png").symlink_to(tmp_path / "parts" / "0.png")
    folder = tmp_path / "parts"
    taken = training_pictures([folder, folder / "1.png", folder])
    assert [Path(str(picture)).name for picture in taken.pictures] == ["0.png", "1.png"]
    assert taken.lines == ("left out: 5 pictures that are the same file as another",)


def test_copies_are_counted(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(b"same" if number % 2 else bytes([number] * 4))
    taken = training_pictures(tmp_path)
    assert len(taken.pictures) == 4
    assert taken.lines == (
        "1 of 4 pictures is a copy of another, e.g. 3.png: a copy teaches nothing, but counts",
    )


def test_what_is_no_file_is_not_opened_to_look_for_copies(tmp_path: Path) -> None:
    # A pipe would be waited for without end, and /dev/zero has none; /dev/null reads as empty.
    (tmp_path / "0.png").touch()
    (tmp_path / "1.png").symlink_to(os.devnull)
    taken = training_pictures(tmp_path)
    assert len(taken.pictures) == 2
    assert taken.lines == ()


def test_a_detector_notes_what_was_left_out(tmp_path: Path) -> None:
    parts.make_folder(tmp_path / "parts" / "monday", 3)
    fill(tmp_path / "parts", "monday/x.gif", "notes.pdf")
    held = Detector(Config.create(resize=64)).fit(tmp_path / "parts")
    said = (
        "taken from the folders monday (3)",
        "left out: 2 files of a format that is not read (1 .gif, 1 .pdf)",
    )
    assert held.fitted_.remarks[:2] == said
    assert set(said) < set(held.notes_)
    fill(parts.make_folder(tmp_path / "more", 1), "y.jp2")
    held.update(tmp_path / "more")
    assert held.notes_.count("update: left out: 1 file of a format that is not read (1 .jp2)") == 1
