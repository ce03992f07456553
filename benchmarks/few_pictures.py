"""How many good pictures are enough: image AUROC and false alarms from 1 to 32 of them.

    python benchmarks/few_pictures.py [DATA_ROOT] [--seeds 5] [--only NAME ...] [--figure FILE.svg]
        [--json FILE]

Each row is the mean of fits on that many pictures, drawn anew for each seed, without and with
15 augmented copies of each. *Called defects* are good test pictures above the
threshold, *not good* those above the lower one; asked for are 1 % and 5 %. One picture gives no
threshold. DATA_ROOT holds data sets in any layout that ``fapm evaluate`` reads.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import fapm
from fapm.config import Config
from fapm.datasets.loading import load_dataset
from fapm.frames.layout import layout_of
from fapm.frames.preparation import Frame, Preparation
from fapm.measure.metrics import auroc
from fapm.pictures import codec

DATA_SETS = ("mvtec/bottle", "mvtec/transistor", "magnetic_tile", "screw")
COUNTS = (1, 2, 4, 8, 16, 32)
SETTINGS: dict[str, dict[str, Any]] = {"plain": {}, "--augment 15": {"augment": 15}}


def frames_of(paths: list[Path]) -> list[Any]:
    """Frames as the embedded encoder takes them, decoded once."""
    read = [
        Preparation(layout_of(Config.create()), "bicubic").read(path, max_pixels=codec.MAX_PIXELS)
        for path in paths
    ]
    return [frame.pixels for frame in read if isinstance(frame, Frame)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=DATA_SETS)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("| data set | good pictures | setting | image AUROC | deviation | called defects "
          "| not good | defects caught |")  # fmt: skip
    print("|" + "---|" * 8)
    for name in arguments.only:
        data = load_dataset(arguments.root / name)
        train = frames_of([sample.path for sample in data.train if sample.label != 1])
        test = frames_of([sample.path for sample in data.test])
        labels = np.array([sample.label for sample in data.test])
        for count in COUNTS:
            for setting, knobs in SETTINGS.items():
                found = []
                for seed in range(arguments.seeds):
                    chosen = np.random.default_rng(seed).choice(len(train), count, replace=False)
                    detector = fapm.fit([train[i] for i in chosen], **knobs)
                    scores = np.concatenate([detector.engine_.run([f]).scores for f in test])
                    levels = detector.fitted_.calibration
                    good = scores[labels == 0]
                    found.append(
                        (
                            100 * auroc(labels, scores),
                            100 * (good > levels.threshold).mean(),
                            100 * (good > levels.unsure_threshold).mean(),
                            100 * (scores[labels == 1] > levels.threshold).mean(),
                        )
                    )
                points, alarms, unsure, caught = np.mean(found, axis=0)
                deviation = float(np.std(found, axis=0)[0])
                rows.append({"data set": name, "pictures": count, "setting": setting,
                             "image_auroc": points, "deviation": deviation})  # fmt: skip
                verdicts = (
                    f"{alarms:.1f} % | {unsure:.1f} % | {caught:.0f} %"
                    if count > 1
                    else "- | - | -"
                )
                print(
                    f"| {name} | {count} | {setting} | {points:.2f} | {deviation:.2f} "
                    f"| {verdicts} |",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.figure:
        draw(rows, arguments.figure)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A curve per data set and setting."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fapm"  # the same figures, the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.5, 4))
    for number, name in enumerate(dict.fromkeys(row["data set"] for row in rows)):
        for setting, style in zip(SETTINGS, ("--", "-"), strict=True):
            line = [r for r in rows if r["data set"] == name and r["setting"] == setting]
            axes.plot(
                [row["pictures"] for row in line],
                [row["image_auroc"] for row in line],
                style,
                color=f"C{number}",
                marker="o",
                markersize=3,
                label=f"{name}, {setting}",
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axes.set_xlabel("good pictures")
    axes.set_ylabel("image AUROC, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, handlelength=3.5, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
