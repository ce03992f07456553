"""Forget: one picture's keys out of a fitted detector. No torch here."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fapm.bundle.calibration import calibrate
from fapm.bundle.fitted import Change, Fitted
from fapm.errors import DatasetError
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import cells_by_patch
from fapm.plain import finite, first_few
from fapm.updating.probe import score_factors

_NAMED = 5  # pictures that a message names


def forget(fitted: Fitted, name: str, *, when: str | None = None) -> Fitted:
    """Remove one picture: its keys, its score, its thumbnail and its name.

    Thresholds are derived from the scores that are left. Fewer keys can only raise those, and they
    are raised by what the keys that are left show (:mod:`fapm.updating.probe`).

    Raises
    ------
    DatasetError
        There is no such picture, it is the only one, or it alone stands for a patch that is
        inspected.
    """
    position = find_picture(fitted.pictures, name)
    if len(fitted.pictures) == 1:
        raise DatasetError(f"{name}: is the only picture of this detector; fit on others instead")
    left = [_without(bank, position, fitted.pictures[position]) for bank in fitted.banks]
    banks = tuple(
        replace(bank, pictures=bank.pictures - (bank.pictures > position)) for bank in left
    )
    old, config = fitted.calibration, fitted.config
    pictures = tuple(p for i, p in enumerate(fitted.pictures) if i != position)
    factors = np.maximum(1, score_factors(
        fitted.banks, left, len(fitted.pictures),
        radius=config.radius, coarse_upsampling=config.coarse_upsampling,
    ))  # fmt: skip
    scores, maxima = (
        np.delete(factors * values, position) if len(pictures) > 1 else np.empty(0)
        for values in (old.scores, old.map_maxima)
    )
    aside = tuple(_shifted(i, position) for i in old.set_aside if i != position)
    calibration = calibrate(
        scores,
        maxima,
        false_positive_rate=config.false_positive_rate,
        unsure_rate=config.alert_rate,
        set_aside=aside if len(aside) < len(scores) else (),
    )
    change = Change(
        action="forget",
        pictures=(fitted.pictures[position],),
        keys=(key_total(fitted.banks), key_total(banks)),
        threshold=(finite(old.threshold), finite(calibration.threshold)),
        when=when,
    )
    return replace(
        fitted,
        banks=banks,
        calibration=calibration,
        pictures=pictures,
        thumbnails={
            _shifted(i, position): jpeg for i, jpeg in fitted.thumbnails.items() if i != position
        },
        history=(*fitted.history, change),
        places=None if fitted.places is None else np.delete(fitted.places, position, axis=0),
    )


def find_picture(names: Sequence[str], wanted: str) -> int:
    """Position of a picture by its name in the bundle, or by the end of its path.

    ``./NAME`` is the picture of exactly that name, even where other names end in it.

    Raises
    ------
    DatasetError
        None matches, or several do; the message names them, or near ones.
    """
    path = wanted.replace("\\", "/")
    if path.removeprefix("./") != path and path[2:] in names:
        return names.index(path[2:])
    found = [i for i, name in enumerate(names) if name == path or name.endswith(f"/{path}")]
    found = found or [i for i, name in enumerate(names) if path.endswith(f"/{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        called = first_few([names[i] for i in found])
        raise DatasetError(
            f"{wanted}: {len(found)} pictures match: {called}; give the whole name, "
            f"with ./ before it: ./{names[found[0]]}"
        )
    stem = path.rpartition("/")[2].rpartition(".")[0]
    near = [name for name in names if stem and stem in name]
    near = near or difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
    known = ", ".join(near[:_NAMED]) if near else f"{names[0]} ... {names[-1]}"
    raise DatasetError(f"{wanted}: no training picture of that name; this detector has {known}")


def key_total(banks: Sequence[MemoryBank]) -> int:
    return sum(len(bank.keys) for bank in banks)


def _without(bank: MemoryBank, picture: int, name: str) -> MemoryBank:
    """The bank without a picture's keys.

    A patch's radius becomes a bound: what the lost keys covered is no farther from the next key
    than the way between the two, and the old radius.
    """
    gone = bank.pictures == picture
    keep = ~gone
    owners = bank.pictures.copy()
    radii = bank.radii.copy()
    cells = cells_by_patch(bank.height, bank.width, bank.grid, bank.inside)
    for patch in np.unique(np.searchsorted(bank.offsets, np.flatnonzero(gone), side="right") - 1):
        rows = np.arange(bank.offsets[patch], bank.offsets[patch + 1])
        if keep[rows].any():
            lost, left = bank.keys[rows[gone[rows]]], bank.keys[rows[keep[rows]]]
            ways = [np.linalg.norm(left - key, axis=1).min() for key in lost]
            radii[patch] += np.float32(max(ways))
        elif radii[patch] == 0:
            # All pictures have these very vectors here: the keys are another's as well.
            keep[rows] = True
            owners[rows] = 0 if picture else 1
        elif len(cells[patch]):
            raise DatasetError(
                f"{name}: a patch of the picture has no other keys; fit again without it"
            )
    return replace(
        bank,
        keys=bank.keys[keep],
        offsets=np.concatenate([[0], np.cumsum(keep)])[bank.offsets],
        pictures=owners[keep],
        cells=bank.cells[keep],
        radii=radii,
    )


def _shifted(position: int, removed: int) -> int:
    """The position of a picture once the one at ``removed`` is gone."""
    return position - (position > removed)
