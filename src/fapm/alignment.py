"""Which alignment a fit uses: what is asked for, or what costs nothing on the good pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.align import MIN_COVERED, Aligner, Motion, Template, learn
from fapm.banks import layer_budgets, memorise_layer
from fapm.config import Config
from fapm.encoding import BATCH, append_features
from fapm.engines import Runtime, open_encoder
from fapm.fitted import FrozenEncoder
from fapm.graph import Search
from fapm.layout import layout_of
from fapm.leave_one_out import score_pictures
from fapm.memory.bank import MemoryBank
from fapm.pipeline import batched
from fapm.spool import Spool

# Good pictures that a template is learned from, at most.
SAMPLE = 64
# Those that alignment is judged on where they are turned, at most: the memory matters, see below.
_JUDGED = 320
# What the good pictures' own distances may grow by where they lie alike, in degrees (the sweep's
# step), and what they must fall to where they do not.
_ALIKE = 5.0
TOLERANCE, EARNED = 1.05, 0.75
# Share of good pictures that may not be found.
_LOST = 0.05
_FEWEST = 8
# What auto tries: it cost no set more than a less free motion did, and follows scale as well.
FREEST: Motion = "similarity"


def choose_template(
    frames: Callable[[int], Iterable[NDArray[np.uint8]]],
    config: Config,
    encoder: FrozenEncoder,
    runtime: Runtime,
) -> tuple[Template | None, str]:
    """The template frames will be registered to, if any, and a sentence on it; may be empty.

    ``auto`` is ``similarity`` if the good pictures are all found in each other, and if that costs
    nothing (they lie alike) or is worth its cost (half of them are turned by 5 degrees or more).
    Both are read off their leave-one-out distances with and without, in the same unit: they must
    not grow by more than 5 %, or must fall to 75 %. A turned frame is resampled and its light
    turned, which hides faint defects more than distances show; and the more pictures there are,
    the better a memory knows every orientation without (``docs/decisions.md``).

    Parameters
    ----------
    frames
        gives up to so many normal pictures made ready, RGB uint8 ``[S, S, 3]`` each; called only
        if needed.
    """
    if config.align == "none":
        return None, ""
    pictures = list(frames(SAMPLE))
    if not pictures:
        return None, ""  # whoever fits finds nothing to read, and says so
    if config.align != "auto":
        return learn(pictures, config.align), ""
    if len(pictures) < _FEWEST:
        return None, f"align none: fewer than {_FEWEST} good pictures are too few to decide on"
    template = learn(pictures, FREEST)
    aligner = Aligner(template)
    found = [aligner.register(frame) for frame in pictures]
    lost = sum(r.correlation < template.floor or r.covered < MIN_COVERED for r in found)
    if lost > _LOST * len(found):
        return None, f"align none: {lost} of {len(found)} good pictures are not found in the others"
    if not any(r.moved for r in found):
        return template, f"align {FREEST}: the good pictures all lie alike"
    turn = float(np.median([r.turn for r in found]))
    alike = turn < _ALIKE
    before, after = leave_one_out_distances(
        pictures if alike else frames(_JUDGED), aligner, config, encoder, runtime
    )
    change = f"the good pictures' distances are {after / before:.2f} of those without"
    if alike:
        chosen = after <= TOLERANCE * before
    else:
        chosen = after <= EARNED * before
        change += f"; half are turned by {turn:.0f} degrees or more, which takes {EARNED} or less"
    return (template, f"align {FREEST}: {change}") if chosen else (None, f"align none: {change}")


def leave_one_out_distances(
    frames: Iterable[NDArray[np.uint8]],
    aligner: Aligner,
    config: Config,
    encoder: FrozenEncoder,
    runtime: Runtime,
) -> tuple[float, float]:
    """Median leave-one-out score of pictures as they are and as placed, in the same unit."""
    runner, layout = open_encoder(encoder, runtime), layout_of(config)
    units: tuple[float, ...] = ()
    medians = []
    with (
        Spool(_JUDGED, config.grid) as plain,
        Spool(_JUDGED, config.grid) as placed,
        torch.inference_mode(),
    ):
        for batch in batched(frames, BATCH):
            append_features(batch, config, layout, runner, plain)
            moved = [aligner.place(frame, aligner.register(frame)) for frame in batch]
            append_features(moved, config, layout, runner, placed)
        for spool in (plain, placed):
            banks = _banks(spool, config)
            units = units or tuple(bank.unit for bank in banks)
            search = Search(
                config, [replace(b, unit=unit) for b, unit in zip(banks, units, strict=True)]
            )
            rows = range(0, spool.count, -(-spool.count // SAMPLE))
            scores, _ = score_pictures(search, spool.select(rows), own=rows)
            medians.append(float(np.quantile(scores, 0.5, method="lower")))
    return medians[0], medians[1]


def _banks(spool: Spool, config: Config) -> list[MemoryBank]:
    sizes = [(height, width) for _, height, width in spool.shapes]
    planned = layer_budgets(config, sizes, spool.count)
    return [
        memorise_layer(partial(spool.patch_vectors, number), budget, size, config)
        for number, (budget, size) in enumerate(zip(planned, sizes, strict=True))
    ]
