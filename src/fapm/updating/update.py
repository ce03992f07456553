"""Update: new normal pictures into a fitted detector, without the old ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.bundle.calibration import Calibration, calibrate
from fapm.bundle.fitted import Change, Fitted
from fapm.encoder.torch_threads import require_threads
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder
from fapm.errors import DatasetError
from fapm.frames.preparation import Frame
from fapm.graph.reference import Search
from fapm.memory.bank import MemoryBank
from fapm.pictures import codec
from fapm.pictures.sources import Picture, picture_names
from fapm.plain import finite, first_few
from fapm.progress import Progress, silent
from fapm.training.banks import layer_budgets, one_thread
from fapm.training.copies import Copies, turned_back
from fapm.training.features import Encoding, placed, stretched
from fapm.training.leave_one_out import score_pictures
from fapm.training.spool import Rows, Spool
from fapm.updating.extend import extend_bank
from fapm.updating.forget import key_total
from fapm.updating.probe import score_factors

# A picture with more than this share of its map above the threshold is probably of something else:
# other products gave 0.46 to 1, defects up to 0.35 (and a broken bottle 0.58).
FOREIGN = 0.4
# Where more than this share of the new pictures were called defects, they were chosen for it.
_CHOSEN = 0.5
# Where this share of the new pictures or more is foreign, they were probably named by mistake.
_TOO_MANY = 0.5
_FAR = "much of what is inspected is far from normal; another product, size, camera or light?"


def update(
    fitted: Fitted,
    pictures: Sequence[Picture],
    runtime: Runtime,
    *,
    when: str | None = None,
    force: bool = False,
    max_pixels: int = codec.MAX_PIXELS,
    progress: Progress = silent,
) -> Fitted:
    """Memorise more normal pictures and derive the thresholds anew.

    The memory grows as a fit on all pictures would have made it, up to the config's budget. Then,
    or where a new picture would still not be good, keys that lie closest to others give way. The
    new pictures get leave-one-out scores; those of the old ones are lowered by what their keys show
    (:mod:`fapm.updating.probe`), never raised. Where most of the new pictures were called defects,
    they were chosen because they alarm: those that without their own keys still would are
    memorised, but are no sample to set thresholds by.

    Parameters
    ----------
    force
        learn even where half of the pictures or more are probably of another product.

    Raises
    ------
    DatasetError
        Half of the pictures or more are probably of another product, and nothing forces it.
    ImageError
        No picture could be read. Single unreadable ones are left out, and listed in ``skipped``.
    EngineError
        The engine is not installed, or cannot run what was fitted; or torch cannot compute in
        this process.
    """
    require_threads()
    encoding = Encoding(
        fitted.config,
        fitted.preparation,
        open_encoder(fitted.encoder, runtime),
        inside=[bank.inside for bank in fitted.banks],
        sizes=[(bank.height, bank.width) for bank in fitted.banks],
        max_pixels=max_pixels,
        copies=Copies.of(fitted.config),
    )
    names = _free_names(pictures, fitted.pictures)
    with encoding.spool(len(pictures)) as spool, torch.inference_mode():
        frames, failures = encoding.encode(pictures, spool, names=names, progress=progress)
        originals = spool.select(range(0, spool.count, encoding.copies.rows))
        before, shares = _as_known(fitted, originals)
        added = tuple(frame.name for frame in frames)
        if not force:
            _refuse_foreign(added, shares > FOREIGN)
        more, full = _room(fitted, len(frames))
        for give_way in (False, True)[full:]:
            banks = _grown(fitted, frames, spool, more, give_way=give_way)
            found = _recalibrated(fitted, banks, before, originals, progress)
            if not found.still.any():
                break
    change = Change(
        action="update",
        pictures=added,
        keys=(key_total(fitted.banks), key_total(banks)),
        threshold=(
            finite(fitted.calibration.threshold),
            finite(found.calibration.threshold),
        ),
        when=when,
        warnings=_warnings(added, before, shares, found.still, fitted.calibration),
    )
    return replace(
        _joined(fitted, frames, banks),
        calibration=found.calibration,
        skipped=fitted.skipped + tuple(failures),
        remarks=fitted.remarks
        + tuple(f"update: {said}" for said in stretched(fitted.layout, frames)),
        history=(*fitted.history, change),
    )


def _joined(fitted: Fitted, frames: Sequence[Frame], banks: Sequence[MemoryBank]) -> Fitted:
    """The grown memory, with names, thumbnails and places of the new pictures."""
    old, places = len(fitted.pictures), placed(frames)
    owners = {p for bank in banks for p in bank.pictures.tolist()}
    thumbnails = {
        **fitted.thumbnails,
        **{old + i: f.thumbnail for i, f in enumerate(frames) if f.thumbnail is not None},
    }
    return replace(
        fitted,
        banks=tuple(banks),
        pictures=fitted.pictures + tuple(frame.name for frame in frames),
        thumbnails={i: jpeg for i, jpeg in sorted(thumbnails.items()) if i in owners},
        places=None if fitted.places is None else np.concatenate([fitted.places, places]),
    )


def _refuse_foreign(names: Sequence[str], foreign: NDArray[np.bool_]) -> None:
    if foreign.any() and foreign.mean() >= _TOO_MANY:
        raise DatasetError(
            f"{first_few(_chosen(names, foreign))}: {_FAR} Nothing was learnt; if they are good, "
            "repeat it with --force (in Python force=True)"
        )


def _as_known(
    fitted: Fitted, features: Spool | Rows
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of new pictures with the memory as it is, and the share of the map above threshold.

    Both are float64 ``[n]``; the share is of what is inspected.
    """
    level, roi = fitted.calibration.map_threshold, fitted.frame_roi
    inspected = 1.0 if roi is None else float(fitted.layout.on_map(roi).mean())
    return score_pictures(
        Search(fitted.config, fitted.banks, roi, fitted.layout),
        features,
        measure=lambda maps: (maps > level).double().mean(dim=(1, 2)) / inspected,
    )


def _grown(
    fitted: Fitted,
    frames: Sequence[Frame],
    spool: Spool,
    more: Sequence[Sequence[int]],
    *,
    give_way: bool,
) -> list[MemoryBank]:
    """The memory banks with keys of new pictures and of their copies."""
    copies, old = Copies.of(fitted.config), len(fitted.pictures)
    # Old keys lie where they lie: the size of their pictures does not matter.
    lying = [(1, 1)] * old + [(frame.height, frame.width) for frame in frames]
    banks = []
    with one_thread():
        for layer, bank in enumerate(fitted.banks):
            by_frame = replace(bank, pictures=bank.pictures * copies.rows)
            grown = extend_bank(
                by_frame,
                partial(spool.patch_vectors, layer),
                more[layer],
                first=old * copies.rows,
                sampling=fitted.config.sampling,
                replace=give_way,
            )
            banks.append(turned_back(grown, copies.rotations, copies.rows, lying))
    return banks


class _Recalibrated(NamedTuple):
    """Thresholds after an update, and which new pictures are still not good, bool ``[n]``."""

    calibration: Calibration
    still: NDArray[np.bool_]


def _recalibrated(
    fitted: Fitted,
    banks: Sequence[MemoryBank],
    before: NDArray[np.float64],
    features: Spool | Rows,
    progress: Progress,
) -> _Recalibrated:
    old = len(fitted.pictures)
    search = Search(fitted.config, banks, fitted.frame_roi, fitted.layout)
    own = range(old, old + features.count)
    scores, maxima = score_pictures(search, features, own=own, progress=progress)
    calibration = _recalibrate(fitted, banks, before, scores, maxima)
    known, _ = score_pictures(search, features)
    return _Recalibrated(calibration, known > calibration.unsure_threshold)


def _room(fitted: Fitted, new: int) -> tuple[list[list[int]], bool]:
    """Keys that ``new`` pictures bring, by layer and patch, and whether that is less than a fit's.

    Then the budget is full, and keys have to give way. So they have to where ``max_keys`` leaves no
    room beside what is held, as a memory of more than is inspected may
    (:func:`fapm.bundle.fitted.restrict`).
    """
    inside, counted = [bank.inside for bank in fitted.banks], Copies.of(fitted.config).counted

    def growth(**bounds: None) -> list[list[int]]:
        config = fitted.config.model_copy(update=bounds)
        sizes = [(bank.height, bank.width) for bank in fitted.banks]
        before, after = (
            layer_budgets(config, sizes, counted * count, inside, fitted.layout)
            for count in (len(fitted.pictures), len(fitted.pictures) + new)
        )
        return [
            [b - a for a, b in zip(one.shares, other.shares, strict=True)]
            for one, other in zip(before, after, strict=True)
        ]

    more, most = growth(), fitted.config.max_keys
    if most is not None and key_total(fitted.banks) + sum(map(sum, more)) > most:
        more = [[0] * len(patches) for patches in more]
    return more, more != growth(budget_pictures=None, max_keys=None)


def _recalibrate(
    fitted: Fitted,
    banks: Sequence[MemoryBank],
    before: NDArray[np.float64],
    scores: NDArray[np.float64],
    maxima: NDArray[np.float64],
) -> Calibration:
    config, old = fitted.config, fitted.calibration
    first, aside = len(fitted.pictures), set(old.set_aside)
    if not len(old.scores):  # one old picture, which is not here to be compared with the new ones
        known = [scores.max(keepdims=True), maxima.max(keepdims=True)]
        aside.add(0)
    else:
        factors = np.minimum(1, score_factors(
            fitted.banks, banks, first,
            radius=config.radius, coarse_upsampling=config.coarse_upsampling,
        ))  # fmt: skip
        known = [factors * old.scores, factors * old.map_maxima]
        if (before > old.threshold).mean() > _CHOSEN:
            aside |= {first + int(i) for i in np.flatnonzero(scores > old.threshold)}
    return calibrate(
        np.concatenate([known[0], scores]),
        np.concatenate([known[1], maxima]),
        false_positive_rate=config.false_positive_rate,
        unsure_rate=config.alert_rate,
        set_aside=tuple(sorted(aside)),
    )


def _warnings(
    names: Sequence[str],
    scores: NDArray[np.float64],
    shares: NDArray[np.float64],
    still: NDArray[np.bool_],
    calibration: Calibration,
) -> tuple[str, ...]:
    """Lines on new pictures that were unusual to the memory without them."""
    foreign = shares > FOREIGN
    alarms = (scores > calibration.threshold) & ~foreign
    said = []
    if foreign.any():
        said.append(
            f"{first_few(_chosen(names, foreign))}: {_FAR} If it should not be in: fapm forget"
        )
    if alarms.any():
        said.append(
            f"{first_few(_chosen(names, alarms))}: called a defect before, up to "
            f"{float(scores[alarms].max()) / calibration.threshold:.2g} times the threshold; "
            "what looks like it will pass from now on"
        )
    if still.any():
        said.append(
            f"{first_few(_chosen(names, still))}: still not good with so few keys; "
            "give more pictures like it"
        )
    return tuple(said)


def _chosen(names: Sequence[str], chosen: NDArray[np.bool_]) -> list[str]:
    return [name for name, named in zip(names, chosen, strict=True) if named]


def _free_names(pictures: Sequence[Picture], taken: Sequence[str]) -> list[str]:
    """Names as at fit; one that is there already gets its folder in front, or a number behind."""
    used, names = set(taken), []
    for picture, name in zip(pictures, picture_names(pictures), strict=True):
        if isinstance(picture, (str, Path)) and name in used:
            name = f"{Path(picture).absolute().parent.name}/{Path(picture).name}"
        number, stem = 1, name
        while name in used:
            number += 1
            name = f"{stem} ({number})"
        used.add(name)
        names.append(name)
    return names
