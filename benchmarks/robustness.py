"""Accuracy when parts lie elsewhere than where they were learned, with and without alignment.

    python benchmarks/robustness.py [DATA_ROOT] [--only NAME ...] [--align none auto] [--plot SVG]

DATA_ROOT holds data sets in any layout that ``fapm evaluate`` reads (default: ../shared/data). Fits
on the training pictures as they are, then judges every test picture shifted, turned and scaled.
Shifts count pixels at 224, to the right and down at once. What comes into view is the picture
reflected at its border, which real pictures of shifted parts do not have: there the real background
goes on. Figures: image AUROC in percent, and how many pictures were unsure for a part not found.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import fapm
from fapm import images
from fapm.datasets import load_dataset
from fapm.metrics import image_metrics

DATA_SETS = ("mvtec/bottle", "mvtec/transistor")
SHIFTS, TURNS, SCALES = (4, 8, 16, 24, 32), (5, 10, 20, 45, 90, 135, 180), (0.8, 0.9, 1.1, 1.2)
# Name of the axis -> its amounts, each as angle, scale, shift.
AXES: dict[str, dict[float, tuple[float, float, float]]] = {
    "shift in px at 224": {0: (0, 1, 0), **{px: (0, 1, px) for px in SHIFTS}},
    "rotation in degrees": {0: (0, 1, 0), **{angle: (angle, 1, 0) for angle in TURNS}},
    "scale": {1: (0, 1, 0), **{scale: (0, scale, 0) for scale in SCALES}},
}


def moved(
    picture: NDArray[np.uint8], angle: float, scale: float, shift: float
) -> NDArray[np.uint8]:
    """The picture turned and scaled about its centre and shifted, its border reflected."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    matrix[:, 2] += np.array([width, height]) * shift / 224
    return cv2.warpAffine(
        picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )


def measure(folder: Path, align: str) -> dict[str, dict[str, list[float]]]:
    """Per axis: amounts, AUROC and pictures not found."""
    dataset = load_dataset(folder)
    start = time.perf_counter()
    detector = fapm.fit([sample.path for sample in dataset.train], align=align)
    print(f"# {folder.name}, {align}: fit {time.perf_counter() - start:.1f} s; "
          f"{'; '.join(detector.notes_) or 'no notes'}", flush=True)  # fmt: skip
    labels = np.array([sample.label for sample in dataset.test])
    pictures = [images.read_image(sample.path) for sample in dataset.test]
    known: dict[tuple[float, float, float], tuple[float, int]] = {}

    def at(pose: tuple[float, float, float]) -> tuple[float, int]:
        if pose not in known:
            unmoved = pose == (0, 1, 0)
            found = detector.predict([p if unmoved else moved(p, *pose) for p in pictures])
            scores = np.array([prediction.score for prediction in found])
            lost = sum(prediction.reason is not None for prediction in found)
            known[pose] = 100 * image_metrics(labels, scores).auroc, lost
        return known[pose]

    return {
        axis: {
            "amount": sorted(poses),
            "auroc": [at(poses[amount])[0] for amount in sorted(poses)],
            "lost": [at(poses[amount])[1] for amount in sorted(poses)],
        }
        for axis, poses in AXES.items()
    }


def plot(results: dict[str, dict[str, dict[str, dict[str, list[float]]]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fapm"
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(
        len(results), len(AXES), figsize=(11, 3 * len(results)), squeeze=False
    )
    for row, (name, by_align) in zip(rows, results.items(), strict=True):
        for axes, axis in zip(row, AXES, strict=True):
            for align, measured in by_align.items():
                axes.plot(measured[axis]["amount"], measured[axis]["auroc"], "o-", label=align)
            axes.set(xlabel=axis, ylabel="image AUROC, %", title=name, ylim=(30, 102))
            axes.grid(alpha=0.3)
            axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("root", type=Path, nargs="?", default=shared)
    parser.add_argument("--only", nargs="+", default=DATA_SETS)
    parser.add_argument("--align", nargs="+", default=("none", "auto"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores\n")
    results = {
        name: {align: measure(arguments.root / name, align) for align in arguments.align}
        for name in arguments.only
    }
    for axis, poses in AXES.items():
        amounts = sorted(poses)
        print(f"\n| data set, {axis} | {' | '.join(map(str, amounts))} |")
        print("|---|" + "---|" * len(amounts))
        for name, by_align in results.items():
            for align, measured in by_align.items():
                cells = [
                    f"{auroc:.2f}" + (f" ({lost})" if lost else "")
                    for auroc, lost in zip(
                        measured[axis]["auroc"], measured[axis]["lost"], strict=True
                    )
                ]
                print(f"| {name}, {align} | {' | '.join(cells)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
