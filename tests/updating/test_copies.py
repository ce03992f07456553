"""An update memorises copies of the new pictures, as the fit did of the old ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fapm import Detector
from fapm.config import Config
from fapm.memory.bank import MemoryBank
from stripes import good, good_pictures

EDGE = 64


def marked(seed: int) -> NDArray[np.uint8]:
    """A good part with a feature that the others do not have, off its centre."""
    picture = good(seed)
    picture[8:24, 36:52] = (230, 40, 40)
    return picture


def fitted(pictures: list[NDArray[np.uint8]], **copies: Any) -> Detector:
    return Detector(Config.create(resize=EDGE, grid=4, ratio=0.3, **copies)).fit(pictures)


def turned(picture: NDArray[np.uint8], quarters: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rot90(picture, quarters))


@pytest.mark.parametrize("quarters", range(4))
def test_a_turned_copy_is_known_after_an_update_as_after_a_fit(quarters: int) -> None:
    detector, copy = fitted(good_pictures(10), rotations=4), turned(marked(50), quarters)
    before = detector.score(copy)
    known = fitted([*good_pictures(10), marked(50)], rotations=4).score(copy)
    after = detector.update([marked(50)], force=True).score(copy)
    assert known < 0.4 * before
    assert before - after > 0.9 * (before - known)


def test_keys_of_copies_belong_to_the_new_picture_and_lie_in_it() -> None:
    detector = fitted(good_pictures(4), rotations=4, augment=2)
    old = detector.fitted_
    detector.update([marked(50), marked(51)], force=True)
    held = detector.fitted_
    assert held.pictures[4:] == ("array 0 (2)", "array 1 (2)")
    assert len(held.calibration.scores) == 6
    for before, bank in zip(old.banks, held.banks, strict=True):
        assert set(bank.pictures.tolist()) <= set(range(6))
        assert set(bank.pictures.tolist()) & {4, 5}
        assert bank.cells.max() < bank.height * bank.width
        # The old keys are where they were, in front of the new ones of their patch.
        kept = [rows_of(bank, patch) for patch in range(len(bank.offsets) - 1)]
        for patch, (keys, cells, pictures) in enumerate(kept):
            theirs = rows_of(before, patch)
            count = len(theirs[0])
            np.testing.assert_array_equal(keys[:count], theirs[0])
            np.testing.assert_array_equal(cells[:count], theirs[1])
            np.testing.assert_array_equal(pictures[:count], theirs[2])
            assert set(pictures[count:].tolist()) <= {4, 5}


def rows_of(bank: MemoryBank, patch: int) -> tuple[NDArray[Any], ...]:
    rows = slice(bank.offsets[patch], bank.offsets[patch + 1])
    return bank.keys[rows], bank.cells[rows], bank.pictures[rows]


def test_disturbed_copies_bring_keys_as_a_fit_s_would() -> None:
    """An augmented picture counts as several, at update as at fit."""
    keys = {}
    for augment in (0, 3):
        detector = fitted(good_pictures(4), augment=augment)
        detector.update([good(60), good(61)], force=True)
        whole = fitted([*good_pictures(4), good(60), good(61)], augment=augment)
        grown, fresh = (sum(len(bank.keys) for bank in d.fitted_.banks) for d in (detector, whole))
        assert grown == pytest.approx(fresh, rel=0.02)
        keys[augment] = grown
    assert keys[3] > 3 * keys[0]


def test_a_disturbed_copy_is_known_after_an_update() -> None:
    moved = np.roll(marked(50), 1, axis=1)
    scores = []
    for augment in (0, 8):
        detector = fitted(good_pictures(6), augment=augment).update([marked(50)], force=True)
        scores.append(detector.score(moved) / detector.score(marked(50)))
    assert scores[1] < scores[0]
