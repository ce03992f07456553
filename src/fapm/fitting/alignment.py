"""Choose the alignment of a fit: the one asked for, or one that costs nothing on good pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fapm.bundle.calibration import upper_level
from fapm.config import Config
from fapm.encoder.spec import FrozenEncoder
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder
from fapm.frames.align import (
    FINE,
    MIN_COVERED,
    Align,
    Aligner,
    Frame,
    Motion,
    Registration,
    Template,
    correlation,
    scaled,
    shrink,
    shrink_coarsely,
    warp_back,
)
from fapm.frames.layout import layout_of
from fapm.graph.reference import Search
from fapm.memory.bank import MemoryBank
from fapm.system.parallel import batched, spread
from fapm.training.banks import layer_budgets, memorise_layer
from fapm.training.features import BATCH, append_features
from fapm.training.leave_one_out import score_pictures
from fapm.training.spool import Spool

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


def choose_alignment(
    frames: Sequence[NDArray[np.uint8]],
    config: Config,
    encoder: FrozenEncoder,
    runtime: Runtime,
) -> tuple[Align | None, str]:
    """The alignment of frames, if any, and a sentence on it; may be empty.

    ``auto`` is ``similarity`` if the good pictures are all found in each other, and if that costs
    nothing (they lie alike) or is worth its cost (half of them are turned by 5 degrees or more).
    Both are read off their leave-one-out distances with and without, in the same unit: they must
    not grow by more than 5 %, or must fall to 75 %. A turned frame is resampled and its light
    turned, which hides faint defects more than distances show; and the more pictures there are,
    the better a memory knows every orientation without (``docs/decisions.md``).

    Parameters
    ----------
    frames
        good pictures made ready, RGB uint8 ``[S, S, 3]`` each.
    """
    if config.align == "none":
        return None, ""
    pictures = spread(frames, SAMPLE)
    if not pictures:
        return None, ""  # whoever fits finds nothing to read, and says so
    if config.align != "auto":
        return Align(learn(pictures, config.align)), ""
    if len(pictures) < _FEWEST:
        return None, f"align none: fewer than {_FEWEST} good pictures are too few to decide on"
    template = learn(pictures, FREEST)
    aligner = Aligner(template)
    chosen = Align(template)
    found = [aligner.register(frame) for frame in pictures]
    lost = sum(r.correlation < template.floor or r.covered < MIN_COVERED for r in found)
    if lost > _LOST * len(found):
        return None, f"align none: {lost} of {len(found)} good pictures are not found in the others"
    if not any(r.moved for r in found):
        return chosen, f"align {FREEST}: the good pictures all lie alike"
    turn = float(np.median([r.turn for r in found]))
    alike = turn < _ALIKE
    before, after = leave_one_out_distances(
        pictures if alike else frames[:_JUDGED], aligner, config, encoder, runtime
    )
    change = f"the good pictures' distances are {after / before:.2f} of those without alignment"
    worth = after <= (TOLERANCE if alike else EARNED) * before
    if not alike:
        change += f"; half are turned by {turn:.0f} degrees or more, which takes {EARNED} or less"
    return (chosen, f"align {FREEST}: {change}") if worth else (None, f"align none: {change}")


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


_ROUNDS = 2
_RATE = 0.01  # of good parts: level that stands for the least typical of them


def learn(frames: Sequence[Frame], motion: Motion) -> Template:
    """The template of good parts, wherever they lie.

    It starts as the frame that is most like the others and becomes their mean, each in its place.

    Parameters
    ----------
    frames
        RGB uint8 ``[S, S, 3]`` each; a few dozen are enough.
    """
    greys = np.stack([shrink(frame) for frame in frames])
    edge = len(frames[0])
    start = _most_typical(greys)
    template = Template(motion, greys[start], frames[start], usual=1.0, floor=-1.0)
    for _ in range(_ROUNDS):
        aligner = Aligner(template)
        found = [aligner.register_grey(grey, edge) for grey in greys]
        template = _mean_template(template, frames, greys, found)
    return template


def _mean_template(
    template: Template, frames: Sequence[Frame], greys: NDArray[np.float32],
    found: Sequence[Registration],
) -> Template:  # fmt: skip
    edge = len(frames[0])
    back = [scaled(r.matrix, FINE / edge) for r in found]
    placed = np.stack([warp_back(g, m, cv2.INTER_LINEAR) for g, m in zip(greys, back, strict=True)])
    # The better half: a part that was not found must not smear the mean.
    order = np.argsort([-r.correlation for r in found], kind="stable")
    chosen = order[: -(-len(order) // 2)]
    mean = placed[chosen].mean(axis=0)
    typical = int(order[0])
    # Each picture against the mean of the others.
    rest = [mean] * len(placed)
    if len(chosen) > 1:
        for number in chosen:
            rest[number] = (len(chosen) * mean - placed[number]) / (len(chosen) - 1)
    close = np.array([correlation(m, g) for m, g in zip(rest, placed, strict=True)])
    rough = [
        correlation(shrink_coarsely(m), shrink_coarsely(g))
        for m, g in zip(rest, placed, strict=True)
    ]
    quarter = FINE // 4
    wrong = [np.roll(mean, step, axis) for axis in (0, 1) for step in (-quarter, quarter)]
    astray = max(correlation(mean, shifted) for shifted in wrong)
    picture = frames[typical]
    own = replace(template, picture=picture)
    return Template(
        motion=template.motion,
        grey=mean.astype(np.float32),
        picture=Aligner(own).place(picture, found[typical]),
        usual=float(np.median(rough)),
        floor=(astray - upper_level(-close, _RATE)) / 2,
    )


def _most_typical(greys: NDArray[np.float32]) -> int:
    flat = greys[:, ::4, ::4].reshape(len(greys), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
    return int((flat @ flat.T).sum(axis=1).argmax())
