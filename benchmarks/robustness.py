"""Accuracy on parts that lie elsewhere, in other light, on worse pictures, with and without help.

    python benchmarks/robustness.py measure [DATA_ROOT] [--only NAME ...] [--settings NAME ...]
        [--axes NAME ...] [--again]
    python benchmarks/robustness.py table
    python benchmarks/robustness.py plot docs/images

DATA_ROOT holds data sets in any layout that ``fapm evaluate`` reads (default: ../shared/data). Fits
on the training pictures as they are, then judges every test picture disturbed (disturbances.py).
What is measured is kept in --store, and not measured again unless --again is given. Figures: image
AUROC, how many good pictures are not called good, and how many pictures are unsure for a part not
found; for light they are means over three orders of the training pictures. matplotlib is needed for
`plot`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fapm
from disturbances import AXES, Picture
from fapm.datasets.loading import load_dataset
from fapm.detector import Detector
from fapm.measure.metrics import image_metrics
from fapm.pictures import codec

DATA_SETS = ("mvtec/bottle", "mvtec/transistor", "magnetic_tile", "screw")
SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "align auto": {"align": "auto"},
    "rotations 12": {"rotations": 12},
    "rotations 36": {"rotations": 36},
    "light gain": {"light": "gain"},
    "roi auto": {"roi": "auto"},
    "augment 4": {"augment": 4},
    "align rigid": {"align": "rigid"},
}
COLOURS = ("#5a5a5a", "#0b6e4f", "#b04a2f", "#e0a080", "#0b6e4f", "#2f5db0", "#b04a2f",
           "#8a6fb0")  # fmt: skip
FIGURES = {
    "robustness_place": ("shift", "rotation", "scale"),
    "robustness_light": ("brightness", "gamma", "cast"),
    "robustness_quality": ("blur", "jpeg", "noise"),
}


def measure(folder: Path, setting: str, wanted: list[str]) -> dict[str, Any]:
    """Per axis its amounts, and for each: AUROC, alarms and catches in percent, parts not found."""
    dataset = load_dataset(folder)
    good = [sample.path for sample in dataset.train if sample.label != 1]
    labels = np.array([sample.label for sample in dataset.test])
    pictures = [codec.read_image(sample.path) for sample in dataset.test]
    grey = all((picture == picture[..., :1]).all() for picture in pictures)
    chosen = [
        name
        for name, axis in AXES.items()
        if (setting == "as it is" or setting in axis.remedies)
        and name in wanted
        and not (name == "cast" and grey)
    ]
    if not chosen:
        return {"notes": [], "axes": {}}
    start = time.perf_counter()
    detectors = [
        fapm.fit([good[i] for i in order], thumbnails=False, **SETTINGS[setting])
        for order in orders(len(good), max(AXES[name].orders for name in chosen))
    ]
    print(
        f"# {folder.name}, {setting}: {len(detectors)} fits, {time.perf_counter() - start:.0f} s; "
        f"{'; '.join(detectors[0].notes_)}", flush=True,
    )  # fmt: skip

    def judged(detector: Detector, asked: list[Picture]) -> list[float]:
        found = detector.predict(asked)
        verdicts = np.array([prediction.verdict for prediction in found])
        return [
            100 * image_metrics(labels, [p.score for p in found]).auroc,
            100 * float(np.mean(verdicts[labels == 0] != "good")),
            100 * float(np.mean(verdicts[labels == 1] == "defect")),
            sum(p.reason is not None for p in found),
        ]

    unchanged = [judged(detector, pictures) for detector in detectors]
    axes: dict[str, dict[str, list[float]]] = {}
    for name in chosen:
        axis = AXES[name]
        amounts, rows = sorted({axis.usual, *axis.amounts}), []
        for amount in amounts:
            if amount == axis.usual:
                found = unchanged[: axis.orders]
            else:
                asked = [axis.change(p, amount, number) for number, p in enumerate(pictures)]
                found = [judged(detector, asked) for detector in detectors[: axis.orders]]
            rows.append(np.mean(found, axis=0).tolist())
        columns = zip(("auroc", "alarms", "caught", "lost"), zip(*rows, strict=True), strict=True)
        axes[name] = {"amount": amounts, **dict(columns)}
    return {"notes": detectors[0].notes_, "axes": axes}


def orders(count: int, number: int) -> list[NDArray[np.int64]]:
    """Orders of the training pictures: as they are, then shuffled."""
    shuffled = [np.random.default_rng(seed).permutation(count) for seed in range(1, number)]
    return [np.arange(count), *shuffled]


def measure_all(arguments: argparse.Namespace, store: dict[str, Any]) -> None:
    for name in arguments.only:
        for setting in arguments.settings:
            known = store.setdefault(name, {}).setdefault(setting, {"notes": [], "axes": {}})
            wanted = [a for a in arguments.axes if arguments.again or a not in known["axes"]]
            found = measure(arguments.root / name, setting, wanted)
            known["notes"] = found["notes"] or known["notes"]
            known["axes"].update(found["axes"])
            arguments.store.write_text(json.dumps(store, indent=1))


def table(arguments: argparse.Namespace, store: dict[str, Any]) -> None:
    """Cells are AUROC / good pictures not called good in percent (parts not found)."""
    for name, axis in AXES.items():
        amounts = sorted({axis.usual, *axis.amounts})
        print(f"\n| {axis.label} | {' | '.join(map(str, amounts))} |")
        print("|---|" + "---|" * len(amounts))
        for data_set, by_setting in store.items():
            for setting, found in by_setting.items():
                if name not in found["axes"]:
                    continue
                row = found["axes"][name]
                cells = [
                    f"{auroc:.2f} / {alarms:.0f}" + (f" ({lost:.0f})" if lost else "")
                    for auroc, alarms, lost in zip(
                        row["auroc"], row["alarms"], row["lost"], strict=True
                    )
                ]
                print(f"| {data_set}, {setting} | {' | '.join(cells)} |")


def plot(arguments: argparse.Namespace, store: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "fapm", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot as plt

    for file, names in FIGURES.items():
        figure, rows = plt.subplots(
            len(store), len(names), figsize=(9.5, 2.3 * len(store)), sharey=True, squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for axes_row, (data_set, by_setting) in zip(rows, store.items(), strict=True):
            for axes, name in zip(axes_row, names, strict=True):
                for setting, found in by_setting.items():
                    if name in found["axes"]:
                        row = found["axes"][name]
                        colour = COLOURS[list(SETTINGS).index(setting)]
                        axes.plot(row["amount"], row["auroc"], "o-", ms=3, color=colour,
                                  label=f"AUROC, {setting}")  # fmt: skip
                        axes.plot(row["amount"], row["alarms"], "x:", ms=3, lw=1, color=colour,
                                  label=f"good ones not good, {setting}")  # fmt: skip
                axes.set(xlabel=AXES[name].label, ylim=(-3, 103))
                axes.set_title(data_set, fontsize=8)
                axes.grid(alpha=0.25)
                if not axes.lines:
                    axes.set_axis_off()
            axes_row[0].set_ylabel("%")
        lines = {line.get_label(): line for axes in rows.flat for line in axes.lines}
        figure.legend(lines.values(), lines, loc="outside upper center", ncols=3, fontsize=7)
        path = arguments.folder / f"{file}.svg"
        figure.savefig(path, metadata={"Date": None})
        print(path, f"{path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--store", type=Path, default=Path("robustness.json"))
    steps = parser.add_subparsers(required=True)
    step = steps.add_parser("measure")
    step.add_argument("root", type=Path, nargs="?", default=shared)
    step.add_argument("--only", nargs="+", choices=DATA_SETS, default=DATA_SETS)
    step.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    step.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    step.add_argument("--again", action="store_true")
    step.set_defaults(run=measure_all)
    steps.add_parser("table").set_defaults(run=table)
    step = steps.add_parser("plot")
    step.add_argument("folder", type=Path)
    step.set_defaults(run=plot)
    arguments = parser.parse_args()
    store = json.loads(arguments.store.read_text()) if arguments.store.exists() else {}
    arguments.run(arguments, store)


if __name__ == "__main__":
    main()
