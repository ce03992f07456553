"""Drift: false alarms on good pictures, and how many pictures a change takes to be noticed.

    python benchmarks/drift.py [DATA_ROOT] [--only NAME ...]

Fits on two thirds of the training pictures; the others and the good test pictures are what the line
makes. Sequences are drawn from them at random, with replacement, one in twenty a real defect. Every
picture is changed in the encoder's frame (224 px) and judged. DATA_ROOT holds data sets in any
layout that ``fapm evaluate`` reads (default: ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import platform
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

import fapm
from fapm.bundle.baseline import Baseline
from fapm.datasets.loading import load_dataset
from fapm.detector import Detector
from fapm.frames.layout import layout_of
from fapm.frames.look import Look, look
from fapm.frames.preparation import Frame, Preparation
from fapm.inspection.drift import DriftMonitor
from fapm.pictures import codec

DATA_SETS = ("mvtec/bottle", "mvtec/transistor", "magnetic_tile", "screw")
DEFECTS = 0.05
SEEDS = 5
LONG = 2_000
BEFORE, AFTER = 100, 600  # pictures before a change, and to notice it in
GRADUAL = 200  # pictures that a gradual change takes
STEPS = 4  # in so many steps

Picture = NDArray[np.uint8]
Change = Callable[[Picture, float], Picture]  # of a frame, and how much of it: 0 .. 1
Seen: TypeAlias = "list[tuple[Look, NDArray[np.float32]]]"


class Case(NamedTuple):
    """A change, and what it should be called."""

    name: str
    cause: str
    change: Change


def gain(factor: float) -> Change:
    return lambda frame, part: (
        (frame * (1 + part * (factor - 1))).round().clip(0, 255).astype(np.uint8)
    )


def shift(pixels: int) -> Change:
    def moved(frame: Picture, part: float) -> Picture:
        # Whole pixels: between them it would be blurred too. What comes into view is the frame
        # mirrored: repeated pixels would be a blurred border, not a move.
        matrix = np.array([[1, 0, round(part * pixels)], [0, 1, 0]], np.float32)
        return cv2.warpAffine(
            frame, matrix, frame.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101
        ).astype(np.uint8)

    return moved


def blur(sigma: float) -> Change:
    return lambda frame, part: cv2.GaussianBlur(frame, (0, 0), part * sigma).astype(np.uint8)


def dirt(opacity: float, row: float = 0.4, column: float = 0.35) -> Change:
    """A greasy spot of 24 px radius: what is behind is blurred and darker."""

    def dirty(frame: Picture, part: float) -> Picture:
        y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
        distance = np.hypot(y - row * frame.shape[0], x - column * frame.shape[1])
        cover = part * opacity / (1 + np.exp((distance - 24) / 3))[:, :, None]
        behind = 0.6 * cv2.GaussianBlur(frame, (0, 0), 6).astype(np.float32)
        return (frame * (1 - cover) + behind * cover).round().astype(np.uint8)

    return dirty


SPOTS = {"centre": (0.5, 0.5), "beside it": (0.4, 0.35), "corner": (0.2, 0.8)}
CASES = [
    *(Case(f"brightness x {f:g}", "light", gain(f)) for f in (0.8, 0.9, 1.1, 1.2)),
    *(Case(f"shift {p} px", "camera", shift(p)) for p in (2, 4, 8)),
    *(Case(f"blur sigma {s}", "lens", blur(s)) for s in (1, 2)),
    *(
        Case(f"spot, opacity {opacity:g}, {place}", "lens", dirt(opacity, *at))
        for opacity in (0.25, 0.5)
        for place, at in SPOTS.items()
    ),
]


def judged(detector: Detector, frames: list[Picture]) -> Seen:
    scored = [detector.engine_.run(frames[i : i + 4]).maps for i in range(0, len(frames), 4)]
    maps = np.concatenate(scored)
    return [(look(frame), found) for frame, found in zip(frames, maps, strict=True)]


def prepared(detector: Detector, paths: list[Path]) -> list[Picture]:
    spec = detector.fitted_.encoder.spec
    read = [
        Preparation(layout_of(detector.config), spec.interpolation).read(
            p, max_pixels=codec.MAX_PIXELS
        )
        for p in paths
    ]
    return [frame.pixels for frame in read if isinstance(frame, Frame)]


def false_alarms(baseline: Baseline, good: Seen, bad: Seen) -> tuple[int, float]:
    """Sequences with an alarm, and the largest score of all."""
    alarms, largest = 0, 0.0
    for seed in range(SEEDS):
        rng, monitor = np.random.default_rng(seed), DriftMonitor(baseline)
        states = [monitor.update(*drawn(rng, good, bad)) for _ in range(LONG)]
        alarms += any(state.alarm for state in states)
        largest = max(largest, *(state.score for state in states))
    return alarms, largest


def drawn(rng: np.random.Generator, good: Seen, bad: Seen) -> tuple[Look, NDArray[np.float32]]:
    pool = bad if bad and rng.random() < DEFECTS else good
    return pool[rng.integers(len(pool))]


def noticed(
    baseline: Baseline, case: Case, good: Seen, bad: Seen, levels: list[Seen], gradual: bool
) -> str:
    """Delays in pictures, the causes named at the alarm and 50 pictures later, error of since."""
    delays, first, later, since = [], Counter[str](), Counter[str](), []
    for seed in range(SEEDS):
        rng, monitor = np.random.default_rng(seed), DriftMonitor(baseline)
        for _ in range(BEFORE):
            monitor.update(*drawn(rng, good, bad))
        alarm = None
        for number in range(1, AFTER + 1):
            level = min(STEPS, 1 + STEPS * number // GRADUAL) if gradual else STEPS
            state = monitor.update(*drawn(rng, levels[level - 1], bad))
            if state.alarm and alarm is None:
                alarm = number
                first[str(state.cause)] += 1
                since.append((state.since or 0) - BEFORE - 1)
            if alarm is not None and number == alarm + 50:
                later[str(state.cause)] += 1
                break
        if alarm is not None:
            delays.append(alarm)
    if not delays:
        return "not noticed"
    some = "" if len(delays) == SEEDS else f" ({len(delays)} of {SEEDS})"
    names = f"{first[case.cause]}/{len(delays)}, {later[case.cause]}/{later.total()}"
    wrong = {c for c in (*first, *later) if c != case.cause}
    named = f"{names}{' also ' + ', '.join(sorted(wrong)) if wrong else ''}"
    return f"{np.median(delays):.0f}{some}; {named}; {np.median(since):+.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--only", nargs="+", default=DATA_SETS)
    arguments = parser.parse_args()
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores\n")
    for name in arguments.only:
        data = load_dataset(arguments.root / name)
        train = [s.path for s in data.train if s.label != 1]
        held = train[::3]
        detector = fapm.fit([p for i, p in enumerate(train) if i % 3])
        baseline = detector.fitted_.baseline
        assert baseline is not None
        frames = prepared(detector, [*held, *(s.path for s in data.test if s.label == 0)])
        good = judged(detector, frames)
        bad = judged(detector, prepared(detector, [s.path for s in data.test if s.label == 1]))
        alarms, largest = false_alarms(baseline, good, bad)
        print(
            f"**{name}**, fitted on {baseline.count}: {alarms} of {SEEDS} sequences of {LONG:,} "
            f"pictures with an alarm, largest score {largest:.2f}\n",
            flush=True,
        )
        print("| change | sudden: delay; cause right at once, later; error of since | gradual |")
        print("|---|---|---|")
        for case in CASES:
            levels = [
                judged(detector, [case.change(f, step / STEPS) for f in frames])
                for step in range(1, STEPS + 1)
            ]
            found = [noticed(baseline, case, good, bad, levels, g) for g in (False, True)]
            print(f"| {case.name} | {' | '.join(found)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
