"""Alignment: known motions are found again, maps come back to where the part lies."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fapm
import parts
from conftest import Command
from fapm import Detector
from fapm.bundle.archive import read_archive
from fapm.errors import BundleError
from fapm.fitting.alignment import learn
from fapm.frames.align import Aligner, Registration, Template, moved_box, restore
from forgery import Forgery

EDGE = 96
MARGIN = 32  # of the scene around a frame: what comes into view is real
CENTRE = (EDGE - 1) / 2

Picture = NDArray[np.uint8]


def scene(number: int = 0, *, hole: bool = False) -> Picture:
    """A textured part on a plain, noisy ground; each number has noise of its own."""
    whole = EDGE + 2 * MARGIN
    y, x = np.mgrid[:whole, :whole] - (whole - 1) / 2
    texture = np.random.default_rng(0).normal(0, 120, (whole, whole))
    part = 130 + cv2.GaussianBlur(texture, (0, 0), 3)
    picture = np.where((abs(x) < 34) & (abs(y) < 26), part, 60.0)
    if hole:
        picture[(x - 15) ** 2 + (y - 10) ** 2 < 49] = 235
    noise = np.random.default_rng(1 + number).normal(0, 3, picture.shape)
    return np.repeat((picture + noise).clip(0, 255).astype(np.uint8)[..., None], 3, 2)


def motion(angle: float, scale: float, x: float, y: float) -> NDArray[np.float64]:
    """From pixels of an unmoved frame to those of a moved one: ``[2, 3]``."""
    turn = math.radians(angle)
    linear = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    centre = np.array([CENTRE, CENTRE])
    return np.column_stack([linear, centre - linear @ centre + (x, y)])


def frame(number: int = 0, *, hole: bool = False, **how: float) -> Picture:
    """What a camera sees of a scene whose part is moved."""
    matrix = motion(**{"angle": 0, "scale": 1, "x": 0, "y": 0, **how})
    matrix[:, 2] -= matrix[:, :2] @ (MARGIN, MARGIN)
    size = (EDGE, EDGE)
    return cv2.warpAffine(
        scene(number, hole=hole), matrix, size, flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def off(found: Registration, expected: NDArray[np.float64]) -> float:
    """Largest distance in pixels between where two motions put the middle of a frame."""
    line = np.linspace(EDGE / 4, 3 * EDGE / 4, 5)
    points = np.stack([*np.meshgrid(line, line), np.ones((5, 5))]).reshape(3, -1)
    return float(np.linalg.norm((found.matrix - expected) @ points, axis=0).max())


@pytest.fixture(scope="module")
def aligners() -> dict[str, Aligner]:
    good = [frame(number) for number in range(8)]
    return {name: Aligner(learn(good, name)) for name in ("shift", "rigid", "similarity")}  # type: ignore[arg-type]


shifts = st.floats(-16, 16)


@settings(max_examples=25, deadline=None)
@given(x=shifts, y=shifts, number=st.integers(100, 200))
@example(x=0.69, y=0.75, number=100)  # half a pixel of the rough search
def test_a_shift_is_found(aligners: dict[str, Aligner], x: float, y: float, number: int) -> None:
    found = aligners["shift"].register(frame(number, x=x, y=y))
    assert off(found, motion(0, 1, x, y)) < 1
    assert found.correlation > aligners["shift"].template.floor


@settings(max_examples=25, deadline=None)
@given(angle=st.floats(-180, 180), x=st.floats(-8, 8), y=st.floats(-8, 8))
def test_a_turn_is_found(aligners: dict[str, Aligner], angle: float, x: float, y: float) -> None:
    found = aligners["rigid"].register(frame(100, angle=angle, x=x, y=y))
    assert off(found, motion(angle, 1, x, y)) < 1
    assert found.correlation > aligners["rigid"].template.floor


@settings(max_examples=15, deadline=None)
@given(angle=st.floats(-30, 30), scale=st.floats(0.85, 1.15))
def test_a_scale_is_found(aligners: dict[str, Aligner], angle: float, scale: float) -> None:
    found = aligners["similarity"].register(frame(100, angle=angle, scale=scale))
    assert off(found, motion(angle, scale, 0, 0)) < 1.5


def test_a_defect_does_not_lead_astray(aligners: dict[str, Aligner]) -> None:
    found = aligners["rigid"].register(frame(100, hole=True, angle=40, x=5))
    assert off(found, motion(40, 1, 5, 0)) < 1


def test_what_lies_well_stays_untouched(aligners: dict[str, Aligner]) -> None:
    """Neither resampled nor cut: accuracy on aligned parts is what it was."""
    aligner, unmoved = aligners["similarity"], frame(100)
    found = aligner.register(unmoved)
    assert not found.moved
    assert found.covered == 1
    assert aligner.place(unmoved, found) is unmoved
    values = np.random.default_rng(0).random((EDGE, EDGE), np.float32)
    assert restore(values, found) is values


@pytest.mark.parametrize(
    "strange",
    [
        np.zeros((EDGE, EDGE, 3), np.uint8),
        np.full((EDGE, EDGE, 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 256, (EDGE, EDGE, 3), np.uint8),
    ],
    ids=["black", "white", "noise"],
)
@pytest.mark.parametrize("name", ["shift", "rigid", "similarity"])
def test_what_is_no_such_part_is_not_found(
    aligners: dict[str, Aligner], name: str, strange: Picture
) -> None:
    found = aligners[name].register(strange)
    assert found.correlation < aligners[name].template.floor
    assert np.isfinite(found.matrix).all()


def test_the_part_is_put_in_place_and_what_is_not_seen_is_a_good_parts(
    aligners: dict[str, Aligner],
) -> None:
    aligner = aligners["rigid"]
    seen = frame(100, x=14)
    found = aligner.register(seen)
    placed = aligner.place(seen, found)
    inner = np.s_[8:-8, 8:-24]
    assert np.abs(placed[inner].astype(float) - frame(100)[inner]).mean() < 8
    # The frame's last columns went out of view 14 pixels before the template's end.
    np.testing.assert_array_equal(placed[:, -13:], aligner.template.picture[:, -13:])
    assert found.covered == pytest.approx(1 - 14 / EDGE, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(angle=st.floats(-180, 180), x=shifts, y=shifts, across=st.integers(30, 65))
def test_a_map_returns_to_where_the_part_lies(
    angle: float, x: float, y: float, across: int
) -> None:
    matrix = motion(angle, 1, x, y)
    values = np.zeros((EDGE, EDGE), np.float32)
    values[45, across] = 1
    values = cv2.GaussianBlur(values, (0, 0), 3)
    restored = restore(values, Registration(matrix, 1.0, 1.0))
    row, column = np.unravel_index(restored.argmax(), restored.shape)
    expected = matrix @ (across, 45, 1)
    assert np.hypot(column - expected[0], row - expected[1]) < 1.5
    assert restored.max() == pytest.approx(values.max(), rel=0.1)


def test_the_map_is_0_where_the_template_does_not_reach() -> None:
    ones = np.ones((EDGE, EDGE), np.float32)
    restored = restore(ones, Registration(motion(0, 1, 20, -10), 1.0, 1.0))
    expected = np.zeros_like(ones)
    expected[: EDGE - 10, 20:] = 1
    np.testing.assert_array_equal(restored, expected)


def test_a_box_moves_with_the_part() -> None:
    box = (0.5, 0.25, 0.125, 0.125)
    shifted = moved_box(box, motion(0, 1, 12, 24), EDGE)
    assert shifted == pytest.approx((0.625, 0.5, 0.125, 0.125))
    half_turn = moved_box(box, motion(180, 1, 0, 0), EDGE)
    assert half_turn == pytest.approx((0.375, 0.625, 0.125, 0.125))
    assert moved_box(box, motion(0, 1, 48, 0), EDGE) == pytest.approx((1, 0.25, 0, 0.125))


def test_a_template_is_learned_from_parts_that_lie_anyhow() -> None:
    rng = np.random.default_rng(0)
    poses = [
        {"angle": rng.uniform(-60, 60), "x": rng.uniform(-8, 8), "y": rng.uniform(-8, 8)}
        for _ in range(16)
    ]
    aligner = Aligner(learn([frame(n, **pose) for n, pose in enumerate(poses)], "rigid"))
    # Placed alike: what one is off the template is what all are.
    placed = [
        aligner.place(seen, aligner.register(seen)).astype(float)[32:64, 32:64]
        for seen in (frame(50, angle=35, x=6), frame(51, angle=-20, y=-6))
    ]
    assert np.abs(placed[0] - placed[1]).mean() < 8


# From fit to verdict


@pytest.fixture(scope="module")
def loose() -> Detector:
    """Fitted on parts that lie anyhow."""
    rng = np.random.default_rng(1)
    good = [frame(n, x=rng.uniform(-8, 8), y=rng.uniform(-8, 8)) for n in range(12)]
    return fapm.fit(good, resize=EDGE, align="shift")


@pytest.mark.parametrize("pose", [{}, {"x": 12.0, "y": -9.0}], ids=str)
def test_a_defect_is_found_where_it_is(loose: Detector, pose: dict[str, float]) -> None:
    good, bad = loose.predict([frame(60, **pose), frame(60, hole=True, **pose)])
    assert good.reason is None
    assert bad.verdict == "defect"
    assert bad.score > 2 * good.score
    x, y = CENTRE + 15 + pose.get("x", 0), CENTRE + 10 + pose.get("y", 0)
    row, column = np.unravel_index(bad.anomaly_map.argmax(), bad.anomaly_map.shape)
    assert np.hypot(column - x, row - y) < 10
    worst = bad.regions[0]
    assert worst.x <= x <= worst.x + worst.width
    assert worst.y <= y <= worst.y + worst.height
    here = bad.comparison.here
    assert abs((here.x + here.width / 2) * EDGE - x) < 14
    assert abs((here.y + here.height / 2) * EDGE - y) < 14


def test_a_part_that_is_not_found_is_unsure_and_says_why(loose: Detector) -> None:
    strange = loose.predict(np.zeros((EDGE, EDGE, 3), np.uint8))
    assert strange.verdict == "unsure"
    assert strange.reason is not None
    assert strange.reason.startswith("the part was not found: ")
    assert math.isfinite(strange.score)


def test_half_a_part_is_not_called_good(loose: Detector) -> None:
    half = loose.predict(frame(60, x=30, y=30))
    assert half.verdict != "good"


def test_alignment_survives_the_bundle(loose: Detector, tmp_path: Path) -> None:
    loose.save(tmp_path / "part.fapm")
    loaded = fapm.load(tmp_path / "part.fapm")
    pictures = [frame(60, x=9), frame(61, hole=True, y=-7), frame(62, angle=90)]
    for ours, theirs in zip(loose.predict(pictures), loaded.predict(pictures), strict=True):
        assert (ours.score, ours.verdict, ours.reason) == (
            theirs.score,
            theirs.verdict,
            theirs.reason,
        )
        assert ours.comparison == theirs.comparison
        np.testing.assert_array_equal(ours.anomaly_map, theirs.anomaly_map)
    loaded.save(tmp_path / "again.fapm")
    assert (tmp_path / "again.fapm").read_bytes() == (tmp_path / "part.fapm").read_bytes()


# What a bundle could say of its alignment, and must not.
FORGERIES: dict[str, Callable[[Forgery], Any]] = {
    "no template": lambda f: f.memory.pop("align.grey"),
    "no picture": lambda f: f.memory.pop("align.picture"),
    "no places": lambda f: f.memory.pop("places"),
    "a template nobody refers to": lambda f: f.manifest["stages"].pop("align"),
    "a template that auto left out": lambda f: (
        f.manifest["stages"].pop("align"), f.manifest["config"].update(align="auto")
    ),
    "no word of it": lambda f: f.manifest.pop("stages"),
    "a stage of nothing": lambda f: f.manifest["stages"].update(align=None),
    "a stage nobody knows": lambda f: f.manifest["stages"].update(polish={}),
    "stages in a list": lambda f: f.manifest.update(stages=["align"]),
    "a tensor that the stage does not have": lambda f: f.memory.update(
        {"align.more": f.memory["align.grey"].clone()}
    ),
    "a template of another size": lambda f: f.memory.update(
        {"align.grey": f.memory["align.grey"][:-1]}
    ),
    "a template of no numbers": lambda f: f.memory["align.grey"].fill_(math.nan),
    "a template beyond grey": lambda f: f.memory["align.grey"].fill_(1e30),
    "a picture of another size": lambda f: f.memory.update(
        {"align.picture": f.memory["align.picture"][:, :-1]}
    ),
    "a picture of floats": lambda f: f.memory.update(
        {"align.picture": f.memory["align.picture"].float()}
    ),
    "a matrix too few": lambda f: f.memory.update({"places": f.memory["places"][:-1]}),
    "matrices of no numbers": lambda f: f.memory["places"].fill_(math.nan),
    "matrices beyond all frames": lambda f: f.memory["places"].fill_(1e9),
    "a motion nobody knows": lambda f: f.manifest["stages"]["align"].update(motion="affine"),
    "a motion that is not the config's": lambda f: (
        f.manifest["stages"]["align"].update(motion="rigid")
    ),
    "a floor of text": lambda f: f.manifest["stages"]["align"].update(floor="low"),
    "a floor above all": lambda f: f.manifest["stages"]["align"].update(floor=2.0),
    "a config without": lambda f: f.manifest["config"].update(align="none"),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_alignment_is_refused(forgery: str, loose: Detector, tmp_path: Path) -> None:
    path = tmp_path / "part.fapm"
    loose.save(path)
    forged = Forgery(path)
    FORGERIES[forgery](forged)
    forged.write(path)
    with pytest.raises(BundleError, match="not a usable bundle") as caught:
        fapm.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([parts.part(n) for n in range(10)], "align similarity: "),
        ([parts.part(n) for n in range(4)], "align none: fewer than 8 "),
        (
            list(np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), np.uint8)),
            "align none: ",
        ),
    ],
    ids=["parts", "few", "noise"],
)
def test_auto_aligns_what_can_be_aligned_and_says_so(
    pictures: list[Picture], expected: str
) -> None:
    detector = fapm.fit(pictures, resize=64, align="auto")
    assert (detector.fitted_.preparation.stage("align") is not None) == expected.startswith(
        "align similarity"
    )
    assert [note for note in detector.notes_ if note.startswith(expected)]


def grained(number: int, angle: float) -> Picture:
    """A part found by its outline, grain and ground its own: turned back it is no nearer."""
    turn, (y, x) = math.radians(angle), np.mgrid[:EDGE, :EDGE] - CENTRE
    along, across = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    shaft = (abs(along) < 34) & (abs(across) < 13)
    head = (abs(along - 26) < 9) & (abs(across) < 22)
    part = cv2.GaussianBlur(np.where(shaft | head, 80.0, 0.0), (0, 0), 1.5)
    noise = np.random.default_rng(number).normal(0, 1, (EDGE, EDGE))
    grain = cv2.GaussianBlur(noise, (0, 0), 0.7)
    picture = 100 + part + 40 * grain / grain.std()
    return np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (lambda n, angle: frame(n, angle=angle), r"align similarity: .* are 0\.[0-6]\d of those"),
        (grained, r"align none: .* are [01]\.[089]\d of those .* 0\.75 or less"),
    ],
    ids=["all alike but for the turn", "each with its own grain"],
)
def test_auto_turns_parts_only_if_they_become_much_more_alike(
    picture: Callable[[int, float], Picture], expected: str
) -> None:
    turns = np.random.default_rng(0).uniform(-180, 180, 24)
    detector = fapm.fit([picture(n, a) for n, a in enumerate(turns)], resize=EDGE, align="auto")
    (note,) = (note for note in detector.notes_ if note.startswith("align "))
    assert re.match(expected, note)
    assert (detector.fitted_.preparation.stage("align") is None) == note.startswith("align none")


def test_what_is_not_found_is_judged_where_it_lies(aligners: dict[str, Aligner]) -> None:
    smaller = frame(100, scale=0.55)
    found = aligners["rigid"].register(smaller)
    assert found.correlation < aligners["rigid"].template.floor
    assert not found.moved
    assert aligners["rigid"].place(smaller, found) is smaller


def test_the_command_line_from_fit_to_table(run: Command, tmp_path: Path) -> None:
    good = tmp_path / "good"
    for number in range(8):
        parts.save(good / f"{number}.png", frame(number))
    parts.save(tmp_path / "new" / "black.png", np.zeros((EDGE, EDGE, 3), np.uint8))
    parts.save(tmp_path / "new" / "moved.png", frame(70, x=10))
    model = tmp_path / "part.fapm"
    options = ("--resize", EDGE, "--align", "shift")
    assert run("fit", good, "--output", model, *options).code == 0
    assert read_archive(model)[0]["stages"]["align"]["motion"] == "shift"
    table, lines = tmp_path / "t.csv", tmp_path / "l.jsonl"
    said = run("inspect", tmp_path / "new", "--model", model, "--csv", table, "--jsonl", lines)
    assert said.code == 0, said.err
    black, moved = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    assert black["verdict"] == "unsure"
    assert black["reason"].startswith("the part was not found: ")
    assert moved["reason"] == ""
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert [record["reason"] is None for record in records] == [False, True]
    assert "unsure" in said.out
    assert "(the part was not found: " in said.out


def test_a_template_says_how_it_was_learned() -> None:
    one: Template = learn([frame(0)], "shift")
    assert Aligner(one).register(frame(1)).correlation > one.floor
