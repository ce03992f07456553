"""What a walk finds: links once each, nothing that a machine made, and what is not read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fapm.datasets.folders import find_pictures, left_out, list_images
from fapm.errors import DatasetError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_images(root)]


@pytest.mark.parametrize(
    "folder",
    ["@eaDir/0.png", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information",
     "__MACOSX", "lost+found", "@Recycle", "@__thumb", ".Trash-1000", "deep/er/@eaDir"],
)  # fmt: skip
def test_folders_that_machines_make_are_skipped(folder: str, tmp_path: Path) -> None:
    fill(tmp_path, "0.png", f"{folder}/SYNOPHOTO_THUMB_S.jpg", f"{folder}/x.gif", "Thumbs.db")
    assert names(tmp_path) == ["0.png"]
    assert left_out([find_pictures(tmp_path)]) == ""


def test_links_to_folders_are_followed_once_each(tmp_path: Path) -> None:
    fill(tmp_path / "disk", "a/1.png", "b/2.png", "b/3.png")
    root = fill(tmp_path / "days", "today/0.png")
    (root / "monday").symlink_to(tmp_path / "disk" / "a")
    (root / "again").symlink_to(tmp_path / "disk" / "a")
    (root / "tuesday").symlink_to(tmp_path / "disk" / "b")
    (root / "earlier").symlink_to(root / "today")
    assert names(root) == ["again/1.png", "today/0.png", "tuesday/2.png", "tuesday/3.png"]
    assert len(list_images(tmp_path / "days")) == len(list_images(tmp_path))


def test_a_folder_of_links_alone(tmp_path: Path) -> None:
    fill(tmp_path / "disk", "1.png")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a").symlink_to(tmp_path / "disk")
    assert names(tmp_path / "links") == ["a/1.png"]


def test_a_link_to_a_folder_above_is_not_followed_but_said(tmp_path: Path) -> None:
    root = fill(tmp_path / "up" / "parts", "1.png")
    fill(tmp_path / "up", "other/2.png")
    (root / "above").symlink_to(tmp_path / "up")
    (root / "here").symlink_to(root)
    assert names(root) == ["1.png"]
    assert left_out([find_pictures(root)]) == "left out: 1 link to a folder above"


def test_links_that_lead_nowhere_are_left_to_whoever_reads_them(tmp_path: Path) -> None:
    fill(tmp_path, "0.png")
    (tmp_path / "dead.png").symlink_to(tmp_path / "gone")
    (tmp_path / "long.png").symlink_to("x" * 300)
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")
    assert names(tmp_path) == ["0.png", "dead.png", "long.png", "round.png"]


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", "0.png", "1.gif", "2.GIF", "3.jp2", "README")
    other = fill(tmp_path / "b", "0.png", "1.jp2")
    assert left_out(map(find_pictures, (root, other))) == (
        "left out: 5 files of a format that is not read (2 .gif, 2 .jp2, 1 no suffix)"
    )


def test_a_pipe_is_no_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatasetError, match="pipe: is neither a file nor a folder"):
        find_pictures(tmp_path / "pipe")


def test_what_cannot_be_reached_says_why(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file or folder"):
        find_pictures(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"cannot be reached \(File name too long\)"):
        find_pictures(tmp_path / ("x" * 300))


def test_a_folder_that_cannot_be_entered_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "0.png", "closed/1.png")
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DatasetError, match=r"closed: cannot be read \(Permission denied\)"):
        find_pictures(tmp_path)
