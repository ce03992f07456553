"""Learning on the line inside a region of interest: of what is outside, nothing is learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

import fapm
import parts
import reference
import reference_online
from conftest import Command, Refusal
from fapm import Detector
from fapm.bundle.fitted import Fitted
from fapm.config import Config
from fapm.engines.base import EncoderRunner
from fapm.engines.opening import open_encoder
from fapm.errors import DatasetError, ImageError
from fapm.memory.bank import MemoryBank
from fapm.memory.coreset import MAX_SHARE, MIN_KEYS, key_count
from fapm.memory.geometry import cells_by_patch, inside_cells, patch_of_cell
from fapm.training.banks import layer_budgets
from fapm.updating import update as updating
from fapm.updating.extend import extend_bank
from fapm.updating.forget import key_total
from fapm.updating.probe import probe_scores
from growing import CHANNELS, EDGE, GRID, SEEDS, made, odd
from regions import asked, check_engines, frames_of, judge, square
from stripes import COUNT, good, good_pictures

Mask = NDArray[np.bool_]
# Has the spot of odd() in it, and whole patches outside.
TOP = square(64, slice(0, 40), slice(16, 64))


def learned(region: Mask = TOP, **knobs: Any) -> Detector:
    return Detector(Config.create(resize=64, **knobs)).fit(good_pictures(), roi=region)


def same_banks(one: Fitted, other: Fitted) -> None:
    for ours, theirs in zip(one.banks, other.banks, strict=True):
        for name in ("keys", "offsets", "pictures", "cells", "radii", "inside"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


# Against float64


def masked(bank: MemoryBank, inside: Mask) -> MemoryBank:
    """What of a bank lies inside."""
    keep = inside[bank.cells]
    kept = np.concatenate([[0], np.cumsum(keep)])
    return replace(
        bank,
        keys=bank.keys[keep],
        offsets=kept[bank.offsets],
        pictures=bank.pictures[keep],
        cells=bank.cells[keep],
        inside=inside,
    )


INSIDES = st.lists(st.booleans(), min_size=EDGE**2, max_size=EDGE**2).map(np.array).filter(any)


@pytest.mark.parametrize(("replacing", "more"), [(False, 2), (True, 1)])
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, inside=INSIDES)
def test_the_new_keys_are_those_of_the_cells_inside(
    replacing: bool, more: int, seed: int, inside: Mask
) -> None:
    whole, new = made(seed)
    first = whole.cells.copy()  # every patch that is inspected has the keys of its first pictures
    inside = inside.copy()
    for own in cells_by_patch(EDGE, EDGE, GRID):
        inside[own[:2]] |= inside[own].any()
    bank = masked(whole, inside)
    cells = cells_by_patch(EDGE, EDGE, GRID, inside)
    looked_at = [p for p, own in enumerate(cells) if len(own)]
    assert set(first[inside[first]]) == set(bank.cells)

    def vectors(patch: int) -> torch.Tensor:
        assert patch in looked_at
        return torch.from_numpy(new[:, cells[patch]].reshape(-1, CHANNELS))

    grown = extend_bank(
        bank, vectors, [more] * len(cells), first=3, sampling="equal-radius", replace=replacing
    )
    old = np.split(bank.keys.astype(np.float64), bank.offsets[1:-1])
    fresh = [new[:, own].reshape(-1, CHANNELS).astype(np.float64) for own in cells]
    held = [len(old[p]) for p in looked_at]
    limits = [
        max(MIN_KEYS, n, key_count(MAX_SHARE, 5 * len(cells[p])))
        for n, p in zip(held, looked_at, strict=True)
    ]
    budget = sum(held) + more * len(looked_at)
    least = min(MIN_KEYS, budget // len(looked_at)) if replacing else -1
    rows = reference_online.extend(
        [old[p] for p in looked_at], [fresh[p] for p in looked_at], least, budget, limits
    )
    expected = [np.empty((0, CHANNELS)) for _ in cells]
    for patch, chosen in zip(looked_at, rows, strict=True):
        expected[patch] = np.concatenate([old[patch], fresh[patch]])[chosen]
    np.testing.assert_array_equal(grown.keys, np.concatenate(expected).astype(np.float32))
    np.testing.assert_array_equal(np.diff(grown.offsets), list(map(len, expected)))
    assert inside[grown.cells].all()
    for key, picture, cell in zip(grown.keys, grown.pictures, grown.cells, strict=True):
        if picture >= 3:
            np.testing.assert_array_equal(key, new[picture - 3, cell])


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, inside=INSIDES)
def test_probes_are_those_of_inspected_cells(seed: int, inside: Mask) -> None:
    """Of a memory that is larger than the region, as after ``restrict``."""
    whole, _ = made(seed)
    bank = replace(whole, inside=inside)
    owners = np.repeat(np.arange(GRID**2), np.diff(bank.offsets))
    expected = np.tile(bank.radii[patch_of_cell(EDGE, EDGE, GRID).ravel()] / bank.unit, (3, 1))
    for row, key in enumerate(bank.keys.astype(np.float64)):
        others = (owners == owners[row]) & (bank.pictures != bank.pictures[row])
        distance = reference_online.nearest(key[None], bank.keys[others].astype(np.float64))[0]
        expected[bank.pictures[row], bank.cells[row]] = distance / bank.unit
    how: dict[str, Any] = {"radius": 0, "coarse_upsampling": "nearest"}
    found = probe_scores([bank], [bank], 3, **how)
    np.testing.assert_allclose(found, expected[:, inside].max(axis=1), rtol=1e-4)
    looked_at = {p for p, own in enumerate(cells_by_patch(EDGE, EDGE, GRID, inside)) if len(own)}
    keys = np.where(np.isin(owners, list(looked_at))[:, None], bank.keys, 1e3).astype(np.float32)
    moved = replace(bank, keys=keys)
    np.testing.assert_array_equal(probe_scores([moved], [moved], 3, **how), found)


CASES: dict[str, dict[str, Any]] = {
    "fast": {},
    "wider search": {"radius": 1, "neighbours": 2},
    "not layer-wise": {"layer_wise": False},
    "near-far, row order": {"sampling": "near-far", "coarse_upsampling": "row-order"},
    "keys give way": {"max_keys": 200},
    "score of surroundings": {"score_sigma": 1.0},
}


@pytest.mark.parametrize("name", CASES)
def test_three_engines_say_what_the_definition_says_after_an_update(name: str) -> None:
    """The memory it left, in float64: scores, maps, cells; and those of the new pictures."""
    new = [good(30), odd(31), good(32)]
    held = learned(**CASES[name])
    before = held.fitted_
    held.update(new).forget("array 3")
    fitted, roi = held.fitted_, held.fitted_.frame_roi
    assert roi is not None
    sizes = [(bank.height, bank.width) for bank in fitted.banks]
    masks = reference.inspected_cells(roi, sizes, fitted.config.coarse_upsampling)
    memories = [reference.of_bank(b, m) for b, m in zip(fitted.banks, masks, strict=True)]
    pictures = [good(70), odd(71)]
    judged = judge(fitted.config, roi, memories, asked(fitted, pictures))
    check_engines(fitted, frames_of(fitted, pictures), judged, roi)
    for bank, mask, old in zip(fitted.banks, masks, before.banks, strict=True):
        np.testing.assert_array_equal(bank.inside, mask.ravel())
        assert mask.ravel()[bank.cells].all()
        np.testing.assert_array_equal(np.diff(bank.offsets) > 0, np.diff(old.offsets) > 0)
        assert (np.diff(bank.offsets) == 0).any()

    held = learned(**CASES[name]).update(new)
    fitted = held.fitted_
    memories = [reference.of_bank(b, m) for b, m in zip(fitted.banks, masks, strict=True)]
    own = range(COUNT, COUNT + len(new))
    left_out = judge(fitted.config, roi, memories, asked(fitted, new), without_pictures=own)
    calibration = fitted.calibration
    np.testing.assert_allclose(calibration.scores[COUNT:], left_out.scores, rtol=1e-3)
    maxima = left_out.maps.max(axis=(1, 2))
    np.testing.assert_allclose(calibration.map_maxima[COUNT:], maxima, rtol=1e-3)


# What is outside


class Disturbed:
    """An encoder whose features are anything where no inspected cell sees them."""

    def __init__(self, runner: EncoderRunner, fitted: Fitted) -> None:
        self.name, self.seen, self._runner = runner.name, 0, runner
        assert fitted.frame_roi is not None
        sizes = [(height, width) for _, height, width in fitted.encoder.shapes]
        upsampling = fitted.config.coarse_upsampling
        self._far = [  # a cell's vector is the mean of 3 x 3 features
            ~binary_dilation(inside.reshape(size), np.ones((3, 3)))
            for inside, size in zip(
                inside_cells(fitted.frame_roi, sizes, upsampling), sizes, strict=True
            )
        ]

    def features(self, frames: Any) -> list[NDArray[np.float32]]:
        rng = np.random.default_rng(len(frames))
        layers = [layer.copy() for layer in self._runner.features(frames)]
        for layer, far in zip(layers, self._far, strict=True):
            layer[:, :, far] = rng.normal(scale=1e3, size=(*layer.shape[:2], far.sum()))
            self.seen += int(far.sum())
        return layers


@pytest.mark.parametrize("name", CASES)
def test_what_is_outside_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held, other = learned(**CASES[name]), learned(**CASES[name])
    new = [good(30), odd(31), good(32)]
    held.update(new)
    disturbed = Disturbed(open_encoder(other.fitted_.encoder, other.runtime), other.fitted_)
    monkeypatch.setattr(updating, "open_encoder", lambda encoder, runtime: disturbed)
    other.update(new)
    assert disturbed.seen > 0
    same_banks(held.fitted_, other.fitted_)
    ours, theirs = held.fitted_.calibration, other.fitted_.calibration
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    np.testing.assert_array_equal(ours.map_maxima, theirs.map_maxima)
    assert held.fitted_.history == other.fitted_.history


# A detector


def test_a_confirmed_false_alarm_inside_does_not_come_back(tmp_path: Path) -> None:
    held = learned()
    assert held.predict(odd(50)).verdict == "defect"
    held.update([odd(50), odd(51), odd(52)], force=True)  # the spot fills the region
    assert {p.verdict for p in held.predict([odd(s) for s in (50, 70, 71)])} == {"good"}
    (warning,) = held.fitted_.history[0].warnings
    assert warning.startswith("array 0 (2), array 1 (2), array 2 (2): ")
    held.save(tmp_path / "part.fapm")
    loaded = fapm.load(tmp_path / "part.fapm")
    same_banks(held.fitted_, loaded.fitted_)
    assert loaded.update(good(20)).forget("array 2").predict(odd(70)).verdict == "good"


@pytest.mark.parametrize("knobs", [{}, {"max_keys": 150}, {"budget_pictures": 14}], ids=str)
def test_the_budget_counts_the_vectors_inside(knobs: dict[str, int]) -> None:
    held = learned(**knobs)
    before = held.fitted_
    held.update([good(seed) for seed in range(20, 24)])
    inside = [bank.inside for bank in before.banks]
    sizes = [(bank.height, bank.width) for bank in before.banks]
    old, new = (layer_budgets(held.config, sizes, n, inside) for n in (COUNT, COUNT + 4))
    for layer, bank in enumerate(held.fitted_.banks):
        grown = sum(new[layer].shares) - sum(old[layer].shares)
        assert len(bank.keys) == len(before.banks[layer].keys) + grown
    assert key_total(held.fitted_.banks) <= knobs.get("max_keys", 10**9)


def test_forget_leaves_the_keys_of_the_others() -> None:
    held = learned()
    old = held.fitted_
    held.forget("array 5")
    for before, after in zip(old.banks, held.fitted_.banks, strict=True):
        keep = before.pictures != 5
        assert not keep.all()
        np.testing.assert_array_equal(after.keys, before.keys[keep])
        np.testing.assert_array_equal(after.cells, before.cells[keep])
        owners = np.repeat(np.arange(len(before.radii)), np.diff(before.offsets))[keep]
        np.testing.assert_array_equal(
            np.repeat(np.arange(len(after.radii)), np.diff(after.offsets)), owners
        )
        assert (after.radii >= before.radii).all()
    after_scores = held.fitted_.calibration.scores
    assert (after_scores >= np.delete(old.calibration.scores, 5)).all()


def test_an_update_and_its_forgetting_leave_the_same_keys() -> None:
    held = learned()
    before = held.fitted_
    held.update([good(seed) for seed in range(20, 24)])
    assert key_total(held.fitted_.banks) > key_total(before.banks)
    for number in range(4):
        held.forget(f"array {number} (2)")
    for old, bank in zip(before.banks, held.fitted_.banks, strict=True):
        np.testing.assert_array_equal(old.keys, bank.keys)


def test_another_product_fills_the_region_not_the_frame() -> None:
    held = learned(square(64, slice(0, 32), slice(0, 32)))  # a quarter: less than what is foreign
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    held.update([noise, good(20), good(21)])
    (warning,) = held.fitted_.history[0].warnings
    assert warning.startswith("array 0 (2): much of what is inspected is far from normal")


def test_pictures_of_another_shape_are_left_out() -> None:
    held = learned()
    held.update([good(20, 48, 64), good(21)])
    assert len(held.fitted_.pictures) == COUNT + 1
    (failure,) = held.fitted_.skipped
    assert "64 x 48 pixels, but the ROI was drawn on 64 x 64" in failure.error
    with pytest.raises(ImageError, match="but the ROI was drawn on"):
        held.update([good(20, 48, 64)])


def test_only_tiles_that_are_inspected_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.create(tile=64, overlap=0, grid=4)
    pictures = [good(seed, 64, 192) for seed in range(8)]
    region = np.zeros((64, 192), np.bool_)
    region[:, 128:] = True
    held = Detector(config).fit(pictures, roi=region)
    runner, tiles = open_encoder(held.fitted_.encoder, held.runtime), []

    class Counted:
        name = runner.name

        def features(self, frames: Any) -> list[NDArray[np.float32]]:
            tiles.extend(frames)
            return runner.features(frames)

    monkeypatch.setattr(updating, "open_encoder", lambda encoder, runtime: Counted())
    spot = good(30, 64, 192)
    spot[8:20, 150:162] = 30
    assert held.predict(spot).verdict == "defect"
    held.update(spot, force=True)
    assert len(tiles) == 1
    assert held.predict(spot).verdict == "good"


# A memory that is larger than the region


@pytest.mark.parametrize("knobs", [{}, {"max_keys": 300}], ids=str)
def test_a_restricted_detector_learns_in_its_region_alone(
    knobs: dict[str, int], tmp_path: Path
) -> None:
    whole = Detector(Config.create(resize=64, **knobs)).fit(good_pictures())
    before = whole.fitted_
    part = whole.restrict(TOP)
    assert part.predict(odd(50)).verdict == "defect"
    part.update([odd(50), good(20), good(21)])
    assert whole.fitted_ is before
    assert part.predict(odd(50)).verdict == "good"
    for old, new in zip(before.banks, part.fitted_.banks, strict=True):
        cells = cells_by_patch(new.height, new.width, new.grid, new.inside)
        for patch, own in enumerate(cells):
            a, b = (bank.keys[bank.offsets[patch] : bank.offsets[patch + 1]] for bank in (old, new))
            if not len(own):
                np.testing.assert_array_equal(a, b)
                assert old.radii[patch] == new.radii[patch]
        assert new.inside is not None
        assert new.inside[new.cells[new.pictures >= COUNT]].all()
    assert key_total(part.fitted_.banks) <= knobs.get("max_keys", 10**9)
    part.save(tmp_path / "part.fapm")
    again = fapm.load(tmp_path / "part.fapm")
    assert again.score(odd(51)) == part.score(odd(51))
    again.forget("array 0 (2)")
    assert again.predict(odd(50)).verdict == "defect"


def test_a_patch_of_one_picture_alone_holds_it_back_only_if_inspected() -> None:
    whole = Detector(Config.create(resize=64)).fit(good_pictures())
    part = whole.restrict(TOP).fitted_
    bank = part.banks[0]
    owners = bank.pictures.copy()
    last = bank.offsets[-2]  # the patch in the lower right corner
    assert len(cells_by_patch(bank.height, bank.width, bank.grid, bank.inside)[-1]) == 0
    owners[last:] = 1
    banks = (replace(bank, pictures=owners), *part.banks[1:])
    held = Detector.of(replace(part, banks=banks)).forget("array 1")
    assert held.fitted_.banks[0].offsets[-2] == held.fitted_.banks[0].offsets[-1]
    assert held.score(good(40)) > 0
    with pytest.raises(DatasetError, match="array 1: a patch of the picture has no other keys"):
        Detector.of(replace(whole.fitted_, banks=(replace(banks[0], inside=None), *banks[1:]))
                    ).forget("array 1")  # fmt: skip


# The command line


def test_the_command_line_learns_inside_a_region(
    run: Command, refusal: Refusal, washers: Path, tmp_path: Path
) -> None:
    rows, columns = parts.HOLE
    around = square(64, slice(0, rows.stop + 8), slice(0, columns.stop + 8))
    mask = parts.save(tmp_path / "roi.png", around.astype(np.uint8) * 255)
    model, output = tmp_path / "part.fapm", tmp_path / "new.fapm"
    fit = ("fit", washers / "train" / "good", "--resize", 64, "--output", model, "--roi", mask)
    assert run(*fit).code == 0
    more = parts.make_folder(tmp_path / "more", 3)
    hole = parts.save(more / "hole.png", parts.part(300, hole=True))
    parts.save(more / "wide.png", parts.part(301)[:48])
    finished = run("update", model, more, "-o", output)
    assert (finished.code, finished.out) == (0, f"{output}\n")
    assert "left out: wide.png: 64 x 48 pixels, but the ROI was drawn on 64 x 64" in finished.err
    assert "warning: hole.png: much of what is inspected is far from normal" in finished.err
    manifest = json.loads(run("info", output, "--json").out)
    assert len(manifest["pictures"]) == 16
    assert run("inspect", hole, "--model", output).out.startswith("good")
    assert run("forget", output, "hole.png", "--quiet").code == 0
    assert run("inspect", hole, "--model", output).out.startswith("defect")
    before = output.read_bytes()
    wide = more / "wide.png"
    line = refusal("update", output, wide)
    assert line.startswith(f"none of 1 picture could be read; the first: {wide}: 64 x 48 pixels")
    assert output.read_bytes() == before
