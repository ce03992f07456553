"""Outputs: what was made stays, what was there before is not lost, and nothing else is blamed."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import pytest

import fapm
import parts
from conftest import Command, Refusal
from fapm.bundle import file as bundles
from fapm.errors import DatasetError, OutputError
from fapm.frames.preparation import Failure
from fapm.reports import sinks
from fapm.system import paths
from fapm.system.files import (
    before_name,
    growing,
    keep_before,
    make_directory,
    refuse_unwritable,
    replaced_when_complete,
)
from fapm.system.locks import sole_writer

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")
LONG = "a" * 300


def write(path: Path, data: bytes = b"new") -> None:
    with replaced_when_complete(path) as file:
        file.write(data)


# Whole files


def test_only_its_own_errors_are_blamed_on_an_output(tmp_path: Path) -> None:
    for output in (replaced_when_complete, growing):
        with pytest.raises(OSError, match="stale"), output(tmp_path / "x"):
            raise OSError(errno.ESTALE, "a stale share of pictures")
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    first, link = tmp_path / "versions" / "first", tmp_path / "current"
    first.write_bytes(b"old")
    link.symlink_to(first)
    write(link)
    assert link.is_symlink()
    assert first.read_bytes() == b"new"
    with growing(link) as add:
        add(b"line\n")
    assert link.is_symlink()
    assert first.read_bytes() == b"line\n"
    dangling = tmp_path / "next"
    dangling.symlink_to(tmp_path / "versions" / "second")
    write(dangling)
    assert dangling.is_symlink()
    assert (tmp_path / "versions" / "second").read_bytes() == b"new"
    looping = tmp_path / "loop"
    looping.symlink_to(looping)
    with pytest.raises(OutputError, match="cannot write: "):
        write(looping)


@posix
def test_mode_and_owner_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch()
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    write(path)
    after = path.stat()
    assert after.st_ino != before.st_ino
    kept = ("st_mode", "st_uid", "st_gid")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]


def test_a_mounted_file_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mounted"
    path.write_bytes(b"longer than the new one")
    number = path.stat().st_ino

    def busy(self: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", busy)
        write(path)
    assert (path.read_bytes(), path.stat().st_ino) == (b"new", number)
    assert [p.name for p in tmp_path.iterdir()] == ["mounted"]


def test_what_cannot_take_the_place_of_a_file_is_kept_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "part.fapm"
    path.write_bytes(b"old")
    replace = Path.replace

    def refusing(self: Path, target: Path) -> Path:
        if target == path:
            raise OSError(errno.EPERM, "not yours")
        return replace(self, target)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", refusing)
    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OutputError, match="cannot be replaced: No space left") as refused:
        write(path)
    (kept,) = {*tmp_path.iterdir()} - {path}
    assert str(refused.value).endswith(f"what was to be in it is in {kept}")
    assert (kept.suffix, kept.read_bytes()) == (".fapm", b"new")


@posix
def test_pipes_and_devices_are_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    for output in (replaced_when_complete, growing):
        reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
        reader.start()
        with output(pipe) as sink:
            getattr(sink, "write", sink)(b"result")
        reader.join()
        with output(Path("/dev/null")) as sink:
            getattr(sink, "write", sink)(b"result")
    assert read == [b"result"] * 2
    assert paths.is_stream(pipe)
    assert paths.is_stream("/dev/null")


@posix
def test_stdout_by_its_name_is_not_replaced(
    run: Command, washers: Path, model: Path, tmp_path: Path
) -> None:
    command = ("inspect", washers / "test", "-m", model, "-q")
    lines = run(*command, "--jsonl", "/dev/stdout").out.splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["good"] * 3 + ["defect"] * 3
    # In a process of its own, whose stdout is a file.
    code = (
        "from pathlib import Path; from fapm.system.files import replaced_when_complete\n"
        "print('before', flush=True)\n"
        "with replaced_when_complete(Path('/dev/stdout')) as file: file.write(b'whole\\n')\n"
        "print('after')"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\nwhole\nafter\n"


# Files that grow


def test_lines_are_there_at_once_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_bytes(b"of last week")

    def interrupted() -> None:
        with growing(path) as add:
            assert path.read_bytes() == b"of last week"
            add(b"1\n")
            assert path.read_bytes() == b"1\n"
            add(b"2\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"1\n2\n"


def test_before_its_first_line_an_output_changes_nothing(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"of last week")
    for path in (old, new):
        with pytest.raises(RuntimeError), growing(path):
            raise RuntimeError
    assert old.read_bytes() == b"of last week"
    assert not new.exists()
    with growing(old):
        pass
    assert old.read_bytes() == b""  # nothing was there to be found


def test_a_table_has_its_heading_from_the_first_row_on(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("of last week")
    with sinks.csv_table(str(path)) as add:
        assert path.read_text() == "of last week"
        add(Failure("a\nb.png", "it's broken"))
        (row,) = csv.DictReader(io.StringIO(path.read_bytes().decode()))
    assert (row["source"], row["verdict"], row["error"]) == ("a\nb.png", "failed", "it's broken")


@posix
def test_a_line_that_does_not_fit_any_more_is_not_there_in_part(tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from fapm.errors import DatasetError, OutputError
from fapm.system.files import growing
resource.setrlimit(resource.RLIMIT_FSIZE, (25, 25))
try:
    with growing(Path({str(tmp_path / "r")!r})) as add:
        for _ in range(5):
            add(b"ten bytes\\n")
except OutputError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == f"{tmp_path / 'r'}: cannot write: File too large\n"
    assert (tmp_path / "r").read_bytes() == b"ten bytes\n" * 2


# Two writers


def test_two_that_change_a_bundle_at_once_lose_nothing(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "part.fapm"
    copy.write_bytes(model.read_bytes())
    commands = [
        [sys.executable, "-m", "fapm", "forget", str(copy), name, "-q"]
        for name in _forgettable(model, 2)
    ]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait(120) for process in running] == [0, 0]
    assert len(fapm.load(copy).fitted_.pictures) == 12 - 2
    assert {path.name for path in tmp_path.iterdir()} == {"part.fapm", "part.before.fapm"}
    assert len(fapm.load(tmp_path / "part.before.fapm").fitted_.pictures) == 12 - 1


def _forgettable(model: Path, count: int) -> list[str]:
    """Pictures without which every patch still has keys."""
    detector, names = fapm.load(model), []
    for name in detector.fitted_.pictures:
        with suppress(DatasetError):
            detector.forget(name)
            names.append(name)
        if len(names) == count:
            break
    return names


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    path, said = tmp_path / "counter", []
    path.write_text("0")

    def count() -> None:
        for _ in range(5):
            with sole_writer(path, waiting=said.append) as refuse_if_changed:
                number = int(path.read_text())
                refuse_if_changed()
                write(path, str(number + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == "20"
    assert set(said) <= {f"{path}: waiting for another fapm that is changing it"}
    assert [p.name for p in tmp_path.iterdir()] == ["counter"]


def test_what_somebody_else_wrote_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "part.fapm"
    path.write_text("old")
    with sole_writer(path) as refuse_if_changed:
        refuse_if_changed()
        write(path)
        with pytest.raises(OutputError, match="another program has written it meanwhile"):
            refuse_if_changed()
    # Not read but only written, as with --output: what appears during the wait counts as well.
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with sole_writer(path):
            inside.set()
            done.wait(30)
            write(path, b"of the one before")

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(30)
    waiting = sole_writer(path, read=False, waiting=lambda line: done.set())
    with waiting as refuse_if_changed, pytest.raises(OutputError, match="has written it"):
        refuse_if_changed()
    holder.join()
    assert path.read_text() == "of the one before"


# Paths that cannot be had


@pytest.mark.parametrize(
    "words",
    [
        "inspect {test} -m {long}",
        "inspect {test} -m {model} --jsonl {long}",
        "inspect {test} -m {model} --csv {long}",
        "inspect {test} -m {model} --drift {long}",
        "inspect {test} -m {model} --overlays {long}",
        "inspect {test} -m {model} --report {long}",
        "inspect {test} -m {model} --roi {long}",
        "fit {test} -o {long}",
        "evaluate {root} --json {long}",
        "update {model} {test} -o {long}",
        "info {long}",
        "audit {test} --report {long}",
    ],
)
def test_a_name_that_is_too_long_is_one_line(
    refusal: Refusal, washers: Path, model: Path, words: str
) -> None:
    given = {
        "root": str(washers),
        "test": str(washers / "test" / "good"),
        "model": str(model),
        "long": LONG,
    }
    assert LONG in refusal(*(word.format(**given) for word in words.split()))


@posix
def test_a_picture_that_cannot_be_reached_is_a_failed_row(
    run: Command, washers: Path, model: Path, tmp_path: Path
) -> None:
    parts.save(tmp_path / "in" / "a.png", parts.part(50))
    (tmp_path / "in" / "b.png").symlink_to(LONG)
    jsonl, table = tmp_path / "r.jsonl", tmp_path / "r.csv"
    finished = run("inspect", tmp_path / "in", "-m", model, "--jsonl", jsonl, "--csv", table)
    assert finished.code == 0, finished.err
    good, failed = map(json.loads, jsonl.read_text().splitlines())
    assert (good["verdict"], failed["verdict"]) == ("good", "failed")
    assert failed["error"].endswith("b.png: cannot be read: File name too long")
    assert len(table.read_text().splitlines()) == 3


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="must be root")
def test_another_user_s_folders_are_one_line(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "folder").mkdir(parents=True)
    parts.save(closed / "a.png", parts.part(1))
    parts.save(tmp_path / "unreadable.png", parts.part(1)).chmod(0o000)
    closed.chmod(0o700)
    temporary = Path(tempfile.gettempdir())
    for folder in (tmp_path, *takewhile(lambda above: above != temporary, tmp_path.parents)):
        folder.chmod(0o755)
    code = f"""
import os
from pathlib import Path
from fapm.pictures.codec import read_image
from fapm.system import paths
from fapm.errors import FapmError
from fapm.system.files import growing, make_directory, refuse_unwritable
closed, root = Path({str(closed)!r}), Path({str(tmp_path)!r})
read_image(closed / "a.png")  # imports all that it needs
os.setgid(65534)
os.setuid(65534)
print(paths.exists(closed / "a.png"), paths.is_directory(closed / "folder"))
for action in (
    lambda: read_image(closed / "a.png"),
    lambda: read_image(root / "unreadable.png"),
    lambda: refuse_unwritable(closed / "folder" / "x"),
    lambda: refuse_unwritable(closed / "x"),
    lambda: growing(root / "x").__enter__(),
    lambda: make_directory(closed / "folder"),
    lambda: make_directory(root),
):
    try: action()
    except FapmError as error: print(error)
"""
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.stderr == ""
    assert said.stdout.replace(str(tmp_path), "ROOT").splitlines() == [
        "False False",
        "ROOT/closed/a.png: cannot be read: Permission denied",
        "ROOT/unreadable.png: cannot be read: Permission denied",
        "ROOT/closed/folder/x: cannot write: Permission denied",
        "ROOT/closed/x: cannot write: Permission denied",
        "ROOT/x: cannot write: no permission to write in ROOT",
        "ROOT/closed/folder: cannot create: Permission denied",
        "ROOT: cannot write: no permission to write in ROOT",
    ]


def test_questions_about_paths_do_not_raise(tmp_path: Path) -> None:
    questions: list[Callable[[str], object]] = [
        *(paths.exists, paths.is_file, paths.is_directory, paths.is_stream, paths.identity),
        lambda path: paths.same(path, path),
    ]
    for path in (LONG, "null\0byte", str(tmp_path / "missing")):
        assert not any(question(path) for question in questions)
        with pytest.raises(OutputError):
            refuse_unwritable(Path(path, "file"))
    make_directory(tmp_path / "made")
    assert paths.same(tmp_path / "made", tmp_path / "made" / ".." / "made")


# Overlays


def test_overlays_of_long_names_have_names_that_fit(
    run: Command, model: Path, tmp_path: Path
) -> None:
    name = "ä" * 120 + "x" * 11 + ".png"  # 255 bytes
    for folder in ("one", "two", "three"):
        parts.save(tmp_path / "in" / folder / name, parts.part(50))
    finished = run(
        *("inspect", tmp_path / "in", "-m", model, "--overlays", tmp_path / "out"),
        *("--jsonl", tmp_path / "r.jsonl"),
    )
    assert finished.code == 0, finished.err
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 3


def test_an_overlay_that_cannot_be_made_takes_nothing_with_it(
    run: Command, washers: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(image: object) -> bytes:
        raise OutputError("maps/001.png: cannot write: No space left on device")

    monkeypatch.setattr("fapm.pictures.codec.encode_png", full)
    finished = run(
        *("inspect", washers / "test" / "good", "-m", model, "--overlays", tmp_path / "maps"),
        *("--jsonl", tmp_path / "r.jsonl"),
    )
    assert finished.code == 2
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 3
    warnings = [line for line in finished.err.splitlines() if line.startswith("warning: no over")]
    assert len(warnings) == 3
    assert finished.err.splitlines()[-1].startswith("fapm: 3 overlays could not be made; the first")


# What needs no disk


def test_a_bundle_is_weighed_without_being_written(model: Path) -> None:
    assert bundles.size(fapm.load(model).fitted_) == model.stat().st_size


# The file before


def test_the_file_before_is_kept_with_its_mode_beside_what_a_link_leads_to(tmp_path: Path) -> None:
    assert keep_before(tmp_path / "part.fapm") is None
    assert keep_before(Path(os.devnull)) is None
    (tmp_path / "versions").mkdir()
    target = tmp_path / "versions" / "3.fapm"
    target.write_bytes(b"first")
    target.chmod(0o600)
    assert keep_before(target) == before_name(target) == tmp_path / "versions" / "3.before.fapm"
    if os.name != "posix":
        return
    link = tmp_path / "part.fapm"
    link.symlink_to(target)
    write(link, b"second")
    kept = keep_before(link)
    assert kept == before_name(target)
    assert kept.read_bytes() == b"second"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"part.fapm", "versions"}


@posix
def test_what_a_link_at_the_kept_file_s_place_leads_to_is_not_touched(tmp_path: Path) -> None:
    path, good = tmp_path / "part.fapm", tmp_path / "good.fapm"
    path.write_bytes(b"now")
    good.write_bytes(b"good")
    before_name(path).symlink_to(good)
    assert keep_before(path) == before_name(path)
    assert (good.read_bytes(), before_name(path).read_bytes()) == (b"good", b"now")
    assert not before_name(path).is_symlink()


def test_what_cannot_be_kept_is_one_line_and_nothing_is_changed(
    refusal: Refusal, bundle: Path, tmp_path: Path
) -> None:
    model = tmp_path / "part.fapm"
    model.write_bytes(bundle.read_bytes())
    before_name(model).mkdir()
    line = refusal("forget", model, "00.png")
    assert line == f"{before_name(model)}: cannot write: is a directory; name a file in it"
    assert model.read_bytes() == bundle.read_bytes()


def test_the_kept_file_of_a_long_name_has_one_that_fits(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 250 + ".fapm")
    path.write_bytes(b"now")
    kept = keep_before(path)
    assert kept is not None
    assert kept.name == "a" * 243 + ".before.fapm"
