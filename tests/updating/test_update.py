"""Learning on the line: update and forget, against float64, as properties, and as people use it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray

import fapm
import parts
import reference_online as reference
from conftest import Command, Refusal
from fapm import Detector
from fapm.bundle.calibration import calibrate
from fapm.errors import DatasetError, ImageError
from fapm.memory.bank import MemoryBank
from fapm.memory.coreset import MAX_SHARE, MIN_KEYS, key_count
from fapm.memory.geometry import cells_by_patch
from fapm.training.banks import layer_budgets
from fapm.updating.extend import extend_bank
from fapm.updating.forget import find_picture, key_total
from fapm.updating.probe import probe_scores, score_factors
from growing import CHANNELS, EDGE, GRID, SEEDS, made, odd
from stripes import COUNT, bundle_bytes, defective, fitted, good, good_pictures


def extended(
    bank: MemoryBank, new: NDArray[np.float32], more: int, *, replacing: bool
) -> MemoryBank:
    cells = cells_by_patch(EDGE, EDGE, GRID)
    return extend_bank(
        bank,
        lambda patch: torch.from_numpy(new[:, cells[patch]].reshape(-1, CHANNELS)),
        [more] * len(cells),
        first=3,
        sampling="equal-radius",
        replace=replacing,
    )


@pytest.mark.parametrize(("replacing", "more"), [(False, 3), (False, 1), (True, 0), (True, 2)])
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_the_new_keys_are_those_of_the_definition(replacing: bool, more: int, seed: int) -> None:
    bank, new = made(seed)
    cells = cells_by_patch(EDGE, EDGE, GRID)
    old = np.split(bank.keys.astype(np.float64), bank.offsets[1:-1])
    fresh = [new[:, own].reshape(-1, CHANNELS).astype(np.float64) for own in cells]
    limit = max(MIN_KEYS, 6, key_count(MAX_SHARE, 5 * 4))
    rows = reference.extend(
        old, fresh, MIN_KEYS if replacing else -1, 4 * (6 + more), [limit] * len(cells)
    )
    grown = extended(bank, new, more, replacing=replacing)
    for patch, chosen in enumerate(rows):
        part = slice(grown.offsets[patch], grown.offsets[patch + 1])
        both = np.concatenate([old[patch], fresh[patch]])
        np.testing.assert_array_equal(grown.keys[part], both[chosen].astype(np.float32))
        for key, picture, cell in zip(grown.keys[part], grown.pictures[part],
                                      grown.cells[part], strict=True):  # fmt: skip
            if picture >= 3:  # a new one: it says where it came from
                np.testing.assert_array_equal(key, new[picture - 3, cell])


@pytest.mark.parametrize("replacing", [False, True])
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_the_radius_bounds_every_vector_old_and_new(replacing: bool, seed: int) -> None:
    bank, new = made(seed)
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.2, 3, (EDGE * EDGE, 1))
    everything = (rng.normal(size=(5, EDGE * EDGE, CHANNELS)) * scale).astype(np.float32)
    grown = extended(bank, new, 1, replacing=replacing)
    for patch, own in enumerate(cells_by_patch(EDGE, EDGE, GRID)):
        keys = grown.keys[grown.offsets[patch] : grown.offsets[patch + 1]].astype(np.float64)
        vectors = everything[:, own].reshape(-1, CHANNELS).astype(np.float64)
        assert reference.nearest(vectors, keys).max() <= grown.radii[patch] * (1 + 1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_probes_are_scored_without_their_own_picture(seed: int) -> None:
    bank, _ = made(seed)
    expected = np.empty((3, EDGE * EDGE))
    expected[:] = bank.radii[np.repeat(np.repeat([[0, 1], [2, 3]], 2, 0), 2, 1).ravel()] / bank.unit
    owners = np.repeat(np.arange(4), np.diff(bank.offsets))
    for row, key in enumerate(bank.keys.astype(np.float64)):
        others = (owners == owners[row]) & (bank.pictures != bank.pictures[row])
        distance = reference.nearest(key[None], bank.keys[others].astype(np.float64))[0]
        expected[bank.pictures[row], bank.cells[row]] = distance / bank.unit
    found = probe_scores([bank], [bank], 3, radius=0, coarse_upsampling="nearest")
    np.testing.assert_allclose(found, expected.max(axis=1), rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_more_keys_never_raise_a_score(seed: int) -> None:
    bank, new = made(seed)
    grown = extended(bank, new, 3, replacing=False)
    factors = score_factors([bank], [grown], 3, radius=0, coarse_upsampling="nearest")
    assert (factors <= 1 + 1e-6).all()


def layer_keys(detector: Detector) -> list[int]:
    return [len(bank.keys) for bank in detector.fitted_.banks]


def test_a_confirmed_false_alarm_does_not_come_back_and_neither_do_its_like() -> None:
    held = fitted(good_pictures())
    alarm = odd(50)
    before = held.predict(alarm)
    assert before.verdict == "defect"
    defects = [defective(seed) for seed in range(60, 66)]
    caught = [p.verdict for p in held.predict(defects)]
    held.update([alarm, odd(51), odd(52)], when="Tuesday")
    assert held.predict(alarm).verdict == "good"
    assert {p.verdict for p in held.predict([odd(seed) for seed in range(70, 76)])} == {"good"}
    assert [p.verdict for p in held.predict(defects)] == caught == ["defect"] * 6
    (change,) = held.fitted_.history
    assert (change.action, change.when, len(change.pictures)) == ("update", "Tuesday", 3)
    (warning,) = change.warnings
    assert "called a defect before" in warning
    assert warning in held.notes_


def test_one_alarm_alone_is_memorised_but_is_no_sample_of_good_parts() -> None:
    held = fitted(good_pictures())
    level = held.threshold_
    held.update(odd(50))
    calibration = held.fitted_.calibration
    assert held.predict(odd(50)).verdict == "good"
    assert calibration.set_aside == (COUNT,)
    assert calibration.scores[COUNT] > level
    assert held.threshold_ <= level * (1 + 1e-6)
    assert calibration.percentile(calibration.scores[COUNT]) == 100


def test_ordinary_pictures_count_and_old_scores_only_fall() -> None:
    held = fitted(good_pictures())
    before = held.fitted_.calibration
    held.update([good(seed) for seed in range(20, 26)])
    after = held.fitted_.calibration
    assert after.set_aside == ()
    assert len(after.scores) == len(after.map_maxima) == COUNT + 6
    assert (after.scores[:COUNT] <= before.scores).all()
    assert held.fitted_.history[0].warnings == ()


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"sampling": "near-far"},
        {"sampling": "none"},
        {"max_keys": 300},
        {"budget_pictures": 14},
        {"layer_wise": False, "radius": 1},
    ],
    ids=str,
)
def test_an_update_stays_within_the_budget(knobs: dict[str, object]) -> None:
    held = fitted(good_pictures(), **knobs)
    for start in (20, 24):
        before, count = layer_keys(held), len(held.fitted_.pictures)
        held.update([good(seed) for seed in range(start, start + 4)])
        sizes = [(bank.height, bank.width) for bank in held.fitted_.banks]
        old, new = (layer_budgets(held.config, sizes, n) for n in (count, count + 4))
        for layer, keys in enumerate(layer_keys(held)):
            most = before[layer] + sum(new[layer].shares) - sum(old[layer].shares)
            assert before[layer] <= keys <= most
        if "max_keys" in knobs:
            assert key_total(held.fitted_.banks) <= 300


def test_updates_are_repeatable_and_survive_saving(tmp_path: Path) -> None:
    saved = []
    for name in ("a", "b"):
        held = fitted(good_pictures(6))
        held.save(tmp_path / name)
        if name == "b":  # from the file
            held = fapm.load(tmp_path / name)
        held.update([good(20), good(21)]).update([odd(22)], when="2026-11-25").forget("array 1")
        saved.append(bundle_bytes(held, tmp_path / f"{name}.fapm"))
    assert saved[0] == saved[1]
    loaded = fapm.load(tmp_path / "a.fapm").fitted_
    assert loaded.history == held.fitted_.history
    assert loaded.calibration.set_aside == held.fitted_.calibration.set_aside
    assert loaded.pictures == held.fitted_.pictures
    assert "array 1" not in loaded.pictures[:2] or loaded.pictures.count("array 1") == 1


def test_the_order_of_updates_changes_little() -> None:
    """Keys may differ where greedy choices did; what they cover may not."""
    first, second = [good(s) for s in range(20, 24)], [odd(s) for s in range(30, 34)]
    scores = []
    for order in ((first, second), (second, first)):
        held = fitted(good_pictures())
        for pictures in order:
            held.update(pictures, force=True)  # at 64 px an odd spot fills the map
        scores.append(held.score([good(90), odd(91), defective(92)]))
        assert len(held.fitted_.pictures) == COUNT + 8
    np.testing.assert_allclose(scores[0], scores[1], rtol=0.15)


def test_an_update_and_its_forgetting_leave_the_same_keys() -> None:
    held = fitted(good_pictures())
    before = [bank.keys for bank in held.fitted_.banks]
    held.update(good(20))
    assert key_total(held.fitted_.banks) > sum(map(len, before))
    held.forget("array 0 (2)")
    for old, bank in zip(before, held.fitted_.banks, strict=True):
        np.testing.assert_array_equal(old, bank.keys)


def test_a_forgotten_alarm_alarms_again() -> None:
    held = fitted(good_pictures()).update(odd(50))
    assert held.predict(odd(50)).verdict == "good"
    assert held.forget("array 0 (2)").predict(odd(50)).verdict == "defect"


@pytest.mark.parametrize("position", [0, 5, COUNT - 1])
def test_forget_removes_exactly_that_picture_s_keys(position: int) -> None:
    held = fitted(good_pictures())
    old = held.fitted_
    held.forget(f"array {position}")
    new = held.fitted_
    for before, after in zip(old.banks, new.banks, strict=True):
        keep = before.pictures != position
        np.testing.assert_array_equal(after.keys, before.keys[keep])
        np.testing.assert_array_equal(after.cells, before.cells[keep])
        names = [new.pictures[i] for i in after.pictures]
        assert names == [old.pictures[i] for i in before.pictures[keep]]
        assert (after.radii >= before.radii).all()
    assert len(new.calibration.scores) == COUNT - 1
    assert (new.calibration.scores >= np.delete(old.calibration.scores, position)).all()
    names = dict(enumerate(new.pictures))
    assert {names[i]: jpeg for i, jpeg in new.thumbnails.items()} == {
        old.pictures[i]: jpeg for i, jpeg in old.thumbnails.items() if i != position
    }


def test_a_patch_that_is_the_same_in_all_pictures_keeps_its_key() -> None:
    flat = np.full((64, 64, 3), 90, np.uint8)
    held = fitted([flat] * 4, grid=8)  # a cell a patch: one key, and it is the first picture's
    assert {0} == set(held.fitted_.banks[0].pictures.tolist())
    before = layer_keys(held)
    assert held.forget("array 0").predict(flat).verdict == "good"
    assert layer_keys(held) == before


def test_from_one_picture_to_several_and_back(tmp_path: Path) -> None:
    held = fitted([good(0)])
    assert np.isnan(held.threshold_)
    held.update([good(1), good(2), good(3)])
    assert np.isfinite(held.threshold_)
    assert held.fitted_.calibration.set_aside == (0,)
    held.save(tmp_path / "part.fapm")
    assert fapm.load(tmp_path / "part.fapm").threshold_ == held.threshold_
    for name in held.fitted_.pictures[1:]:
        held.forget(name)
    assert np.isnan(held.threshold_)
    with pytest.raises(DatasetError, match="is the only picture"):
        held.forget("array 0")


def test_a_failed_update_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    held = fitted(good_pictures())
    before = held.fitted_
    with pytest.raises(ImageError, match="none of 1 picture could be read"):
        held.update(tmp_path / "empty.png")
    with pytest.raises(ImageError, match="no pictures"):
        held.update([])
    assert held.fitted_ is before


def test_another_product_is_refused_and_a_minority_of_it_is_warned_of() -> None:
    held = fitted(good_pictures())
    before = held.fitted_
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    with pytest.raises(DatasetError, match=r"^array 0 \(2\): much of .* force=True") as refused:
        held.update([noise, good(20)])  # half of them
    assert "--force" in str(refused.value)
    assert held.fitted_ is before
    held.update([noise, good(20), good(21)])
    (warning,) = held.fitted_.history[0].warnings
    assert warning.startswith("array 0 (2): much of what is inspected is far from normal")
    forced = Detector.of(before).update([noise], force=True)
    assert forced.fitted_.pictures[COUNT:] == ("array 0 (2)",)
    assert "far from normal" in forced.fitted_.history[0].warnings[0]


def test_an_update_says_which_pictures_it_resized_to_another_shape() -> None:
    held = fitted([good(seed, 64, 96) for seed in range(6)], keep_aspect=True)
    held.update([good(20, 64, 92), good(21, 64, 96)])
    assert held.fitted_.remarks[-1] == (
        "update: 1 of 2 pictures is of another shape than 96 x 64 pixels, by up to 4.2 %, and is "
        "resized to it"
    )
    count = len(held.fitted_.remarks)
    assert len(held.update([good(22, 64, 96)]).fitted_.remarks) == count


def test_pictures_set_aside_do_not_count() -> None:
    scores = np.append(np.linspace(1, 2, 200), [50.0, 60.0])
    rates = {"false_positive_rate": 0.01, "unsure_rate": 0.05}
    kept = calibrate(scores[:200], scores[:200], **rates)
    aside = calibrate(scores, scores, **rates, set_aside=(200, 201))
    assert (aside.threshold, aside.unsure_threshold, aside.map_threshold) == (
        kept.threshold, kept.unsure_threshold, kept.map_threshold,
    )  # fmt: skip
    assert aside.percentile(40) == 100


@pytest.mark.parametrize(
    ("wanted", "position"),
    [("a/1.png", 0), ("/data/a/1.png", 0), ("2.png", 1), ("b\\3.png", 2)],
)
def test_a_picture_is_found_by_its_name_or_the_end_of_its_path(wanted: str, position: int) -> None:
    assert find_picture(("a/1.png", "a/2.png", "b/3.png"), wanted) == position


def test_an_unknown_picture_is_refused_with_what_is_near_it() -> None:
    for names in (("a/1.png", "b/1.png"), ("1.png", "b/1.png")):
        with pytest.raises(DatasetError) as caught:
            find_picture(names, "1.png")
        assert str(caught.value) == (
            f"1.png: 2 pictures match: {', '.join(names)}; give the whole name, with ./ "
            f"before it: ./{names[0]}"
        )
        assert [find_picture(names, f"./{name}") for name in names] == [0, 1]
    with pytest.raises(DatasetError, match=r"2 pictures match: 1\.png, b/1\.png; give"):
        find_picture(("1.png", "b/1.png"), "/data/b/1.png")  # either may be meant
    assert find_picture(("1.png", "b/1.png"), "b/1.png") == 1
    with pytest.raises(DatasetError, match=r"x: 7 pictures match: .*4/x and 2 more; give"):
        find_picture([f"{number}/x" for number in range(7)], "x")
    with pytest.raises(
        DatasetError, match=r"no training picture of that name; this detector has 001\.png"
    ):
        find_picture(("001.png", "xyz.jpg"), "001.jpeg")


# The command line


def test_the_command_line_updates_and_forgets(run: Command, model: Path, tmp_path: Path) -> None:
    more = parts.make_folder(tmp_path / "more", 3)
    parts.save(more / "hole.png", parts.part(300, hole=True))
    (more / "broken.png").write_bytes(b"")
    output = tmp_path / "new.fapm"
    finished = run("update", model, more, "-o", output, "--when", "2026-11-25")
    assert (finished.code, finished.out) == (0, f"{output}\n")
    assert "note: left out: broken.png" in finished.err
    assert "warning: hole.png: " in finished.err
    assert "update: 4 pictures, keys " in finished.err
    manifest = json.loads(run("info", output, "--json").out)
    assert [h["when"] for h in manifest["history"]] == ["2026-11-25"]
    # Names that were taken got the folder's name in front.
    assert manifest["pictures"][12:] == [
        "more/000.png", "more/001.png", "more/002.png", "hole.png",
    ]  # fmt: skip
    assert "update" in run("info", output).out

    inspected = run("inspect", more / "hole.png", "--model", output)
    assert inspected.out.startswith("good")
    finished = run("forget", output, "hole.png", "--quiet")
    assert (finished.code, finished.out, finished.err) == (0, f"{output}\n", "")
    assert run("inspect", more / "hole.png", "--model", output).out.startswith("defect")


def test_an_update_names_what_it_learnt_and_keeps_the_bundle_before(
    run: Command, refusal: Refusal, bundle: Path, tmp_path: Path
) -> None:
    model, kept = tmp_path / "my part.fapm", tmp_path / "my part.before.fapm"
    model.write_bytes(bundle.read_bytes())
    more = tmp_path / "more"
    for number in range(7):
        parts.save(more / f"{number}.png", good(20 + number))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    other = parts.save(tmp_path / "other.png", noise)
    line = refusal("update", model, other)
    assert line.startswith("other.png: much of what is inspected is far from normal; another")
    assert line.endswith("repeat it with --force (in Python force=True)")
    assert not kept.exists()

    finished = run("update", model, more)
    assert f"update: the bundle before is kept as {kept}" in finished.err.splitlines()
    assert finished.err.splitlines()[-1] == (
        "update: learnt 0.png, 1.png, 2.png, 3.png, 4.png and 2 more; "
        f"fapm forget '{model}' NAME takes one back"
    )
    assert kept.read_bytes() == bundle.read_bytes()
    learnt = model.read_bytes()
    assert run("forget", model, "3.png", "-q").err == ""
    assert kept.read_bytes() == learnt

    # Another file: nothing is replaced, unless it is there.
    new = tmp_path / "new.fapm"
    assert "kept as" not in run("forget", model, "4.png", "-o", new).err
    assert not (tmp_path / "new.before.fapm").exists()
    first = new.read_bytes()
    assert run("update", model, other, "--force", "-q", "-o", new).code == 0
    assert (tmp_path / "new.before.fapm").read_bytes() == first
    line = refusal("forget", kept, "5.png", "-o", model)
    assert line.startswith(f"{model}: the file that is there would be kept as {kept}, which would")
    assert kept.read_bytes() == learnt


def test_the_same_update_writes_the_same_bytes(run: Command, model: Path, tmp_path: Path) -> None:
    more = parts.make_folder(tmp_path / "more", 2)
    for name in ("a.fapm", "b.fapm"):
        assert run("update", model, more, "-o", tmp_path / name, "-q").code == 0
    assert (tmp_path / "a.fapm").read_bytes() == (tmp_path / "b.fapm").read_bytes()


def test_what_cannot_be_updated_or_forgotten_is_refused(
    refusal: Refusal, model: Path, tmp_path: Path
) -> None:
    before = model.read_bytes()
    assert "no such file or folder" in refusal("update", model, tmp_path / "nowhere")
    (tmp_path / "broken.png").write_bytes(b"x")
    assert refusal("update", model, tmp_path / "broken.png").startswith("none of 1 picture")
    line = refusal("forget", model, "000.jpg")
    assert line.startswith("000.jpg: no training picture of that name; this detector has 000.png")
    assert refusal("forget", tmp_path / "no.fapm", "000.png").startswith(f"{tmp_path / 'no.fapm'}:")
    assert refusal("forget", model, "two\nlines").startswith("two lines: no training picture of")
    assert "no such directory" in refusal(
        "forget", model, "000.png", "-o", tmp_path / "missing" / "x.fapm"
    )
    assert model.read_bytes() == before


def test_a_patch_of_one_picture_alone_cannot_be_forgotten() -> None:
    held = fitted(good_pictures(3))
    bank = held.fitted_.banks[0]
    owners = bank.pictures.copy()
    owners[: bank.offsets[1]] = 1
    banks = (replace(bank, pictures=owners), *held.fitted_.banks[1:])
    held = Detector.of(replace(held.fitted_, banks=banks))
    with pytest.raises(DatasetError, match="array 1: a patch of the picture has no other keys"):
        held.forget("array 1")
