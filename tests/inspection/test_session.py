"""A session: results are handed on one by one, and summed up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import parts
from conftest import Command
from fapm import Detector, Failure, Prediction
from fapm.inspection.drift import DriftMonitor
from fapm.inspection.session import Session
from stripes import defective, fitted, good


def test_a_session_hands_results_on_and_sums_them_up(detector: Detector, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"x")
    got: list[Prediction | Failure] = []
    again: list[Prediction | Failure] = []
    steps: list[tuple[str, int, int]] = []
    session = Session(detector, [got.append, again.append])
    pictures = [good(30), broken, defective(31), good(32)]
    found = session.run(pictures, lambda *step: steps.append(step))
    assert [type(result) for result in got] == [Prediction, Failure, Prediction, Prediction]
    assert again == got
    assert steps == [("inspect", number, 4) for number in range(1, 5)]
    assert found.verdicts == {"good": 2, "unsure": 0, "defect": 1}
    assert found.pictures == 4
    assert found.failures == (got[1],)
    assert found.failed == f"1 of 4 pictures could not be inspected; the first: {got[1].error}"
    assert found.bottleneck in ("decoding", "inference", "writing")
    assert found.rate == 4 / found.seconds
    assert str(found).startswith("2 good, 0 unsure, 1 defect, 1 failed; ")
    assert found.stretched == ""


def test_a_camera_is_asked_for_one_picture_at_a_time(detector: Detector) -> None:
    got: list[Prediction | Failure] = []

    def camera() -> Iterator[np.ndarray]:
        for number in range(3):
            assert len(got) == number  # each is judged before the next is taken
            yield good(40 + number)

    steps: list[tuple[str, int, int]] = []
    found = Session(detector, [got.append]).run(camera(), lambda *step: steps.append(step))
    assert (found.pictures, found.failed) == (3, "")
    assert steps == [("inspect", number, number) for number in (1, 2, 3)]


def test_no_picture_and_none_usable(detector: Detector, tmp_path: Path) -> None:
    assert str(Session(detector).run([])).startswith("0 good, 0 unsure, 0 defect, 0 failed; ")
    (tmp_path / "x.png").write_bytes(b"")
    found = Session(detector).run([tmp_path / "x.png"])
    assert found.failed.startswith("none of 1 picture could be inspected; the first: ")


def test_each_drift_is_warned_of_once(detector: Detector) -> None:
    """The monitor of a stand-in drifts from the second picture, recovers, and drifts again."""
    monitor, said = DriftMonitor(detector.fitted_.baseline), []
    since = [None, 2, 2, None, 5]

    class Drifting:
        fitted_ = detector.fitted_

        def stream(self, pictures: Iterable[object], **options: object) -> Iterator[Failure]:
            assert options["drift"] is monitor
            for number, _ in enumerate(pictures):
                first = since[number]
                cause = None if first is None else "light"
                monitor.state = replace(monitor.state, since=first, cause=cause)
                yield Failure("x", "x")

    Session(Drifting(), monitor=monitor, warning=said.append).run([good(0)] * 5)
    assert [line.partition("since picture ")[2][0] for line in said] == ["2", "5"]
    assert all(line.startswith("drift: the light changed") for line in said)


def test_pictures_that_were_stretched_are_counted() -> None:
    held = fitted([good(seed, 64, 96) for seed in range(6)], keep_aspect=True)
    found = Session(held).run([good(20, 64, 92), good(21, 64, 96), good(22, 128, 192)])
    assert found.stretched.startswith("1 of 3 pictures is of another shape than 96 x 64 pixels")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A good part and two files that are no pictures."""
    parts.save(tmp_path / "in" / "a.png", good(30))
    for name in ("b.png", "c.png"):
        (tmp_path / "in" / name).write_bytes(b"x")
    return tmp_path / "in"


def test_failed_pictures_are_warned_of_and_the_exit_code_says_what_it_said(
    run: Command, bundle: Path, pictures: Path
) -> None:
    said = f"2 of 3 pictures could not be inspected; the first: {pictures / 'b.png'}: "
    finished = run("inspect", pictures, "-m", bundle, "-q")
    (line,) = finished.err.splitlines()
    assert (finished.code, line.startswith(f"warning: {said}")) == (0, True)
    finished = run("inspect", pictures, "-m", bundle, "-q", "--fail-on-defect")
    (line,) = finished.err.splitlines()
    assert (finished.code, line.startswith(f"fapm: {said}")) == (2, True)
    parts.save(pictures / "d.png", defective(31))
    finished = run("inspect", pictures, "-m", bundle, "-q", "--fail-on-defect")
    (line,) = finished.err.splitlines()
    assert (finished.code, line.startswith("warning: 2 of 4 pictures could not")) == (1, True)


def test_inspect_says_once_at_the_end_that_pictures_were_stretched(
    run: Command, tmp_path: Path
) -> None:
    held = fitted([good(seed, 64, 96) for seed in range(6)], keep_aspect=True)
    held.save(tmp_path / "wide.fapm")
    for number in range(2):
        parts.save(tmp_path / "in" / f"{number}.png", good(20 + number, 64, 92))
    finished = run("inspect", tmp_path / "in", "-m", tmp_path / "wide.fapm")
    counts, note = finished.err.splitlines()
    assert counts.startswith("2 good")
    assert note == (
        "note: 2 of 2 pictures are of another shape than 96 x 64 pixels, by up to 4.2 %, and are "
        "resized to it"
    )
    more = run("update", tmp_path / "wide.fapm", tmp_path / "in" / "0.png")
    assert more.err.count("of another shape than 96 x 64 pixels") == 1
    assert "note: 1 of 1 picture is of" in more.err
