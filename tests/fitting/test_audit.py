"""Defects among the good: the audit and robust fits."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fapm
import parts
import reference_online as reference
from conftest import Command, Refusal
from fapm.fitting.outliers import find_outliers, first_mean, nearest_pictures, tail_level
from fapm.training.copies import augmented
from fapm.training.spool import Spool
from stripes import defective, fitted, good, good_pictures

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, kept=st.integers(1, 5), data=st.data())
def test_the_nearest_pictures_are_those_of_the_definition(
    seed: int, kept: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, kept))
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(5, 3, 4))
    numbers = np.sort(rng.choice(5, kept, replace=False))
    found, which = nearest_pictures(
        torch.from_numpy(vectors), torch.from_numpy(vectors[numbers]), numbers, count
    )
    expected = reference.nearest_pictures(vectors, vectors[numbers], numbers.tolist(), count)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for picture, cell, place in np.argwhere(np.isfinite(expected)):
        other = vectors[numbers[which[picture, cell, place]]]
        distance = np.linalg.norm(vectors[picture, cell] - other, axis=1).min()
        assert distance == pytest.approx(expected[picture, cell, place])


def test_many_pictures_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(9, 4, 6, generator=torch.Generator().manual_seed(0))
    whole = nearest_pictures(vectors, vectors, np.arange(9), 3)
    monkeypatch.setattr("fapm.fitting.outliers._DISTANCES", 300)
    parted = nearest_pictures(vectors, vectors, np.arange(9), 3)
    for ours, theirs in zip(parted, whole, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_mean_is_over_those_that_count_and_the_last_known_stands_for_the_rest() -> None:
    distances = torch.tensor([[[1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [1.0, torch.inf, torch.inf]]])
    counts = torch.tensor([[[True, False, True], [False, False, True], [True, False, False]]])
    assert first_mean(distances, counts, 2).tolist() == [[2.5, 4.0, 1.0]]


def test_the_level_is_a_gumbel_s_and_defects_hardly_move_it() -> None:
    stats = pytest.importorskip("scipy.stats")
    scores = stats.gumbel_r.rvs(2, 0.3, size=4000, random_state=0)
    for share in (0.05, 0.01):
        level = tail_level(scores, share)
        assert level == pytest.approx(stats.gumbel_r.isf(share, 2, 0.3), rel=0.02)
    # A fifth of defects, however bad, costs what shifts the quantiles: not their height.
    mixed = [np.append(scores, np.full(1000, height)) for height in (6.0, 6e6)]
    assert tail_level(mixed[0], 0.01) == tail_level(mixed[1], 0.01)
    assert tail_level(mixed[0], 0.01) == pytest.approx(tail_level(scores, 0.01), rel=0.2)


@pytest.mark.parametrize("radius", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_only_what_is_inside_makes_a_picture_stand_out(seed: int, radius: int) -> None:
    """Against the definition, with a defect inside and a greater one outside."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(size=(9, 4, 6, 6)), rng.normal(size=(9, 6, 3, 3))]
    coarse = rng.random((3, 3)) < 0.5
    coarse[0, 0], coarse[2, 2] = True, False
    inside = [coarse.repeat(2, axis=0).repeat(2, axis=1), coarse]
    layers[0][4, :, 1, 1] += 20
    for layer in layers:
        layer[7, :, -1, -1] += 90
    spool = Spool(9, 3, [seen.ravel() for seen in inside])
    spool.append([torch.from_numpy(layer).float() for layer in layers])
    found = find_outliers(
        spool.patch_vectors,
        [(6, 6), (3, 3)],
        9,
        grid=3,
        radius=radius,
        coarse_upsampling="nearest",
        inside=[seen.ravel() for seen in inside],
    )
    assert found.outlying[4]
    assert not found.outlying[7]
    assert found.cells[4].argmax() == 1 * 6 + 1
    outlying: list[int] = []
    for _ in range(3):
        expected = reference.unlike_others(layers, inside, 3, radius, outlying)
        worst = np.sort(expected[:, inside[0]], axis=1)[:, -5:].mean(axis=1)
        outlying = np.flatnonzero(worst > tail_level(worst, 0.01)).tolist()
    np.testing.assert_allclose(found.cells, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.scores, worst, rtol=1e-4)
    assert np.flatnonzero(found.outlying).tolist() == outlying


def test_two_pictures_with_the_same_defect_do_not_hide_each_other() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 4, 6)).astype(np.float32)
    vectors[[3, 7], 2] = 30 + rng.normal(size=6)
    cells = torch.from_numpy(vectors)
    found = find_outliers(
        lambda layer, patch: cells.flatten(0, 1),
        [(2, 2)],
        20,
        grid=1,
        radius=0,
        coarse_upsampling="nearest",
    )
    assert found.outlying[[3, 7]].all()
    assert found.cells[3].argmax() == found.cells[7].argmax() == 2


def test_rows_of_a_spool_are_as_if_there_were_no_others() -> None:
    features = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole, part = Spool(6, 2), Spool(6, 2)
    whole.append([features])
    part.append([features[[1, 2, 5]]])
    rows = whole.select([1, 2, 5])
    assert (rows.count, rows.shapes) == (part.count, part.shapes)
    for patch in range(4):
        torch.testing.assert_close(rows.patch_vectors(0, patch), part.patch_vectors(0, patch))
    torch.testing.assert_close(rows.pictures(0, 1, 3), part.pictures(0, 1, 3))
    assert whole.select(range(6)) is whole


# Robust fits


def test_a_robust_fit_leaves_out_what_stands_out_and_says_so() -> None:
    pictures = good_pictures(20)
    pictures[4], pictures[11] = defective(50), defective(51)
    plain, robust = fitted(pictures), fitted(pictures, robust=True)
    assert plain.predict(defective(60)).verdict == "good"
    assert robust.predict(defective(60)).verdict == "defect"
    assert {"array 4", "array 11"} <= {f.source for f in robust.fitted_.skipped}
    assert not {"array 4", "array 11"} & set(robust.fitted_.pictures)
    assert any("array 4: stands out from the others" in note for note in robust.notes_)
    kept = [p for i, p in enumerate(pictures) if f"array {i}" in robust.fitted_.pictures]
    clean = fitted(kept)
    for ours, theirs in zip(robust.fitted_.banks, clean.fitted_.banks, strict=True):
        np.testing.assert_array_equal(ours.keys, theirs.keys)
        np.testing.assert_array_equal(ours.pictures, theirs.pictures)
    np.testing.assert_array_equal(
        robust.fitted_.calibration.scores, clean.fitted_.calibration.scores
    )


def test_a_robust_fit_of_few_pictures_takes_all() -> None:
    assert len(fitted(good_pictures(7), robust=True).fitted_.pictures) == 7


# Augmented copies


def test_copies_belong_to_their_picture() -> None:
    held = fitted(good_pictures(3), augment=4).fitted_
    assert held.pictures == ("array 0", "array 1", "array 2")
    assert len(held.calibration.scores) == 3
    for bank in held.banks:
        assert set(bank.pictures.tolist()) == {0, 1, 2}
    # Without its copies a picture scores as high as if they were of other pictures: no lower.
    plain = fitted(good_pictures(3), augment=0).fitted_
    assert held.calibration.scores.min() > 0.3 * plain.calibration.scores.min()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    count=st.integers(0, 4),
    shape=st.sampled_from([(64, 64), (40, 96), (96, 40)]),
)
def test_copies_are_repeatable_and_light(
    seed: tuple[int, int], count: int, shape: tuple[int, int]
) -> None:
    picture = good(0, *shape)
    copies = augmented(picture, count, seed)
    assert len(copies) == count
    for copy, again in zip(copies, augmented(picture, count, seed), strict=True):
        np.testing.assert_array_equal(copy, again)
        assert copy.shape == picture.shape
        assert copy.dtype == np.uint8
        assert abs(float(copy.mean()) - float(picture.mean())) < 0.08 * float(picture.mean())


@pytest.mark.parametrize("shape", [(60, 200), (200, 60)])
def test_copies_turn_about_the_middle_of_a_picture_of_any_shape(shape: tuple[int, int]) -> None:
    height, width = shape
    y, x = np.mgrid[:height, :width]
    spot = 250 * np.exp(-((x - (width - 1) / 2) ** 2 + (y - (height - 1) / 2) ** 2) / 50)
    picture = np.repeat(spot[..., None], 3, axis=2).round().astype(np.uint8)
    for copy in augmented(picture, 20, (0, 0)):
        weights = copy[..., 0].astype(np.float64)
        weights[weights < 60] = 0
        down = (weights * y).sum() / weights.sum() - (height - 1) / 2
        right = (weights * x).sum() / weights.sum() - (width - 1) / 2
        # A turn leaves the middle where it is: what is left is the shift, 2 % of each edge.
        assert abs(down) <= 0.02 * height + 0.3
        assert abs(right) <= 0.02 * width + 0.3


# The command line


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (("--rotations", 4), "compares the pictures as they lie"),
        (("--augment", 3), "compares the pictures as they are"),
        (("--robust",), "leaves no picture out"),
        (("--precision", "int8"), "compares in fp32"),
    ],
    ids=["rotations", "augment", "robust", "precision"],
)
def test_the_audit_refuses_what_it_would_ignore(
    refusal: Refusal, washers: Path, option: tuple[object, ...], reason: str
) -> None:
    line = refusal("audit", washers / "train" / "good", *option)
    name = str(option[0]).removeprefix("--")
    assert line == f"{name}: audit {reason}; leave it out"


def test_the_audit_ranks_a_hidden_defect_first(run: Command, tmp_path: Path) -> None:
    folder = parts.make_folder(tmp_path / "good", 20)
    parts.save(folder / "007.png", parts.part(7, hole=True))
    (folder / "broken.png").write_bytes(b"")
    finished = run(
        "audit", folder, "--resize", 64, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv",
        "--report", tmp_path / "report", "--top", 5,
    )  # fmt: skip
    assert finished.code == 0, finished.err
    lines = finished.out.splitlines()
    assert len(lines) == 5
    assert re.fullmatch(r" +1 +[\d.]+  stands out +007\.png", lines[0])
    assert "left out: broken.png" in finished.err
    assert "of 20 pictures stand out" in finished.err
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["pictures"][0]["picture"] == "007.png"
    assert found["pictures"][0]["score"] > found["cut"]
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == [row["picture"] for row in found["pictures"]]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "007.png" in page
    assert "Audit of the good pictures" in page


def test_audit_to_stdout(run: Command, tmp_path: Path) -> None:
    folder = parts.make_folder(tmp_path / "good", 8)
    finished = run("audit", folder, "--resize", 64, "--json", "-", "--quiet")
    assert len(json.loads(finished.out)["pictures"]) == 8
    assert finished.err == ""
    finished = run("audit", folder, "--resize", 64, "--csv", "-", "--quiet")
    assert finished.out.startswith("rank,picture,score,stands_out\n1,")


def test_what_cannot_be_audited_is_refused(refusal: Refusal, good: Path, tmp_path: Path) -> None:
    assert refusal("audit", good) == (
        "audit: at least 8 pictures are needed to compare, 6 were given"
    )
    assert "no such file or folder" in refusal("audit", tmp_path / "nowhere")
    assert "both go to" in refusal("audit", good, "--json", "-", "--csv", "-")
    assert "no such directory" in refusal("audit", good, "--json", tmp_path / "no" / "x")


def test_a_robust_fit_from_the_command_line(run: Command, tmp_path: Path) -> None:
    folder = parts.make_folder(tmp_path / "good", 12)
    parts.save(folder / "003.png", parts.part(3, hole=True))
    output = tmp_path / "x.fapm"
    finished = run("fit", folder, "-o", output, "--resize", 64, "--robust")
    assert finished.code == 0
    assert "note: left out of fit: 003.png: stands out from the others" in finished.err
    assert "003.png" not in fapm.load(output).fitted_.pictures
