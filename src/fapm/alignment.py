"""Which alignment a fit uses: what is asked for, or what costs nothing on the good pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.align import MIN_COVERED, Aligner, Template, learn
from fapm.banks import layer_budgets, memorise_layer
from fapm.config import Config
from fapm.encoding import BATCH, append_features
from fapm.engines import Runtime, open_encoder
from fapm.fitted import FrozenEncoder
from fapm.graph import Search
from fapm.leave_one_out import leave_one_out
from fapm.memory.bank import MemoryBank
from fapm.pipeline import batched
from fapm.spool import Spool

# Good pictures that a template is learned from, and that alignment is judged on, at most.
SAMPLE = 64
# What the good pictures' own distances may grow by.
TOLERANCE = 1.05
# Share of good pictures that may not be found.
_LOST = 0.05
_FEWEST = 8


def choose_template(
    frames: Callable[[], list[NDArray[np.uint8]]],
    config: Config,
    encoder: FrozenEncoder,
    runtime: Runtime,
) -> tuple[Template | None, str]:
    """The template frames will be registered to, if any, and a sentence on it; may be empty.

    ``auto`` is ``rigid`` if the good pictures are all found and lie no farther from each other
    once they are aligned: leave-one-out distances with and without, in the same unit.

    Parameters
    ----------
    frames
        gives normal pictures made ready, RGB uint8 ``[S, S, 3]`` each; called only if needed.
    """
    if config.align == "none":
        return None, ""
    pictures = frames()
    pictures = pictures[:: -(-len(pictures) // SAMPLE)] if pictures else []
    if not pictures:
        return None, ""  # whoever fits finds nothing to read, and says so
    if config.align != "auto":
        return learn(pictures, config.align), ""
    if len(pictures) < _FEWEST:
        return None, f"align none: fewer than {_FEWEST} good pictures are too few to decide on"
    template = learn(pictures, "rigid")
    aligner = Aligner(template)
    found = [aligner.register(frame) for frame in pictures]
    lost = sum(r.correlation < template.floor or r.covered < MIN_COVERED for r in found)
    if lost > _LOST * len(found):
        return None, f"align none: {lost} of {len(found)} good pictures are not found in the others"
    if not any(r.moved for r in found):
        return template, "align rigid: the good pictures all lie alike"
    placed = [aligner.place(frame, r) for frame, r in zip(pictures, found, strict=True)]
    before, after = leave_one_out_distances(pictures, placed, config, encoder, runtime)
    change = f"the good pictures' distances are {after / before:.2f} of those without"
    if after > TOLERANCE * before:
        return None, f"align none: {change}"
    return template, f"align rigid: {change}"


def leave_one_out_distances(
    plain: Sequence[NDArray[np.uint8]],
    placed: Sequence[NDArray[np.uint8]],
    config: Config,
    encoder: FrozenEncoder,
    runtime: Runtime,
) -> tuple[float, float]:
    """Median leave-one-out score of pictures as they are and as placed, in the same unit."""
    runner = open_encoder(encoder, runtime)
    units: tuple[float, ...] = ()
    medians = []
    for frames in (plain, placed):
        with Spool(len(frames), config.grid) as spool, torch.inference_mode():
            for batch in batched(frames, BATCH):
                append_features(batch, config, runner, spool)
            banks = _banks(spool, config)
            units = units or tuple(bank.unit for bank in banks)
            search = Search(
                config, [replace(b, unit=unit) for b, unit in zip(banks, units, strict=True)]
            )
            scores, _ = leave_one_out(search, spool)
            medians.append(float(np.quantile(scores, 0.5, method="lower")))
    return medians[0], medians[1]


def _banks(spool: Spool, config: Config) -> list[MemoryBank]:
    """Small memories, sampled plainly: enough to compare with each other."""
    plain = config.model_copy(
        update={"sampling": "none", "budget_pictures": None, "max_keys": None}
    )
    sizes = [(height, width) for _, height, width in spool.shapes]
    return [
        memorise_layer(partial(spool.patch_vectors, number), budget, size, plain)
        for number, (budget, size) in enumerate(
            zip(layer_budgets(plain, sizes, spool.count), sizes, strict=True)
        )
    ]
