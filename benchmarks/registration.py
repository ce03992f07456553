"""How long registering and placing a frame takes, and how exactly it is done.

    python benchmarks/registration.py [DATA_ROOT] [--only NAME ...]

Learns a template from 64 training pictures at 224 px and registers 40 others, each as it is and
moved at random: shifted by up to 16 px, turned by up to 10 or 180 degrees, scaled by 0.8 to 1.2.
The error is how far the middle three fifths of the frame lie from where the same picture unmoved,
and then moved, would put them (root mean square, px at 224). One thread of OpenCV.
"""

from __future__ import annotations

import argparse
import time
from datetime import date
from pathlib import Path

import cv2
import numpy as np

from fapm.datasets.loading import load_dataset
from fapm.fitting.alignment import learn
from fapm.frames.align import Aligner
from fapm.pictures import codec
from fapm.pictures.resize import resize_image

EDGE = 224
# Largest angle, scales, largest shift.
MOVES = {
    "unmoved": (0, (1, 1), 0),
    "shift 16": (0, (1, 1), 16),
    "turn 10": (10, (1, 1), 8),
    "turn 180": (180, (1, 1), 8),
    "scale": (10, (0.8, 1.2), 8),
}
ABLE = {"shift": ("unmoved", "shift 16"), "rigid": tuple(MOVES)[:4], "similarity": tuple(MOVES)}
LINE = np.linspace(0.2 * EDGE, 0.8 * EDGE, 5)
POINTS = np.stack([*np.meshgrid(LINE, LINE), np.ones((5, 5))]).reshape(3, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("root", type=Path, nargs="?", default=shared)
    parser.add_argument("--only", nargs="+", default=("mvtec/bottle", "mvtec/transistor"))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{date.today()}, OpenCV {cv2.__version__}\n")
    print("| data set | motion | moved | median px | 95 % px | over 4 px | not found | ms "
          "| 95 % ms |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name in arguments.only:
        paths = [sample.path for sample in load_dataset(arguments.root / name).train][:104]
        frames = [resize_image(codec.read_image(p), EDGE, EDGE) for p in paths]
        for motion, moves in ABLE.items():
            aligner = Aligner(learn(frames[:64], motion))  # type: ignore[arg-type]
            for move in moves:
                print(row(name, motion, move, aligner, frames[64:]), flush=True)


def row(name: str, motion: str, move: str, aligner: Aligner, frames: list) -> str:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    angle, scales, shift = MOVES[move]
    errors, lost, times = [], 0, []
    for frame in frames:
        pose = cv2.getRotationMatrix2D(
            ((EDGE - 1) / 2, (EDGE - 1) / 2), rng.uniform(-angle, angle), rng.uniform(*scales)
        )
        pose[:, 2] += rng.uniform(-shift, shift, 2)
        moved = cv2.warpAffine(
            frame, pose, (EDGE, EDGE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        before = aligner.register(frame).matrix
        start = time.perf_counter()
        found = aligner.register(moved)
        aligner.place(moved, found)
        times.append(1000 * (time.perf_counter() - start))
        expected = pose[:, :2] @ before @ POINTS + pose[:, 2:]
        errors.append(np.sqrt(((found.matrix @ POINTS - expected) ** 2).sum(axis=0).mean()))
        lost += found.correlation < aligner.template.floor
    return (
        f"| {name} | {motion} | {move} | {np.median(errors):.2f} | {np.quantile(errors, 0.95):.2f} "
        f"| {100 * np.mean(np.array(errors) > 4):.0f} % | {lost} of {len(frames)} "
        f"| {np.median(times):.2f} | {np.quantile(times, 0.95):.2f} |"
    )


if __name__ == "__main__":
    main()
