"""FAPM beside other detectors: milliseconds per frame and seconds per coreset, in one run.

    python3.11 -m venv peers-venv
    peers-venv/bin/pip install . anomalib==2.7.0 openvino onnx onnxscript
    peers-venv/bin/python benchmarks/peers.py [--json FILE|-]

An environment of its own, because anomalib brings much that FAPM does not need. Nothing is
downloaded while it runs. About four minutes and 5 GB of memory on 2 cores.

Inference, one frame of 224 px at a time (EfficientAD 256 px, as published): the peers are
anomalib's own models, converted by anomalib to OpenVINO, in fp32 and bf16. PatchCore's memory is
10 % of the vectors of 209 pictures. All take turns; a turn is one run untimed and a few timed.
Peers get their float tensor ready made; FAPM makes it from uint8 pixels within its time.

Coreset of 10 % for 209 pictures, on the synthetic features of `coreset.py`. With one memory for the
whole picture every step takes as long as the last: some hundred steps give the time of all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import fapm  # isort: skip  # before torch, whose threads it makes wait passively

import numpy as np
import torch
from numpy.typing import NDArray

from coreset import features
from fapm.memory import coreset
from fapm.memory.coreset import GreedyCoreset, key_count
from fapm.memory.geometry import cells_by_patch
from fapm.memory.memorise import budgets, build_bank
from fapm.memory.patches import concatenate_layers, patch_vectors

PICTURES = 209
EDGE = 224
VECTORS = PICTURES * (EDGE // 8) ** 2
RATIO = 0.1
KEYS = key_count(RATIO, VECTORS)
NEEDED = ("anomalib", "openvino", "onnx", "onnxscript")

OURS = "FAPM"
OUR_PRECISIONS = ("fp32", "bf16", "int8")
ENCODERS: dict[str, dict[str, Any]] = {
    "Lite0": {"encoder": "efficientnet_lite0"},
    "WideResNet50": {"encoder": "wide_resnet50_2.tv_in1k", "weights": "random"},
}
# Channels and edge of the two layers.
LAYERS = {"Lite0": ((40, 28), (112, 14)), "WideResNet50": ((512, 28), (1024, 14))}


@dataclass
class Row:
    """What was measured: milliseconds per frame or seconds per coreset, or why there are none.

    ``setting`` is the precision of an inference, and how much of a coreset was timed.
    """

    method: str
    encoder: str
    setting: str
    times: list[float] = field(default_factory=list)
    failure: str = ""

    def attempt(self, action: Callable[[], Any]) -> Any:
        """What the action returns; None if it fails, whatever the reason, which is kept."""
        try:
            return action()
        except Exception as error:  # peers raise what they like
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            self.failure = f"{type(error).__name__}: {' '.join(lines[:2])}"[:200].replace("|", "/")

    @property
    def median(self) -> float:
        """Infinite where there is none."""
        return float("inf") if self.failure else statistics.median(self.times)


def note(text: str) -> None:
    """Progress and complaints, kept apart from results."""
    print(text, file=sys.stderr, flush=True)


def ours(encoder: str, precision: str) -> Callable[[NDArray[np.uint8]], None]:
    """From a frame uint8 ``[S, S, 3]`` to score and map, with a detector fitted on noise."""
    noise = np.random.default_rng(0)
    pictures = noise.integers(0, 256, (PICTURES, EDGE, EDGE, 3), dtype=np.uint8)
    engine = fapm.fit(pictures, precision=precision, **ENCODERS[encoder]).engine_

    def run(frame: NDArray[np.uint8]) -> None:
        engine.run([frame])

    return run


def measure_inference(rounds: int, block: int) -> list[Row]:
    """Builds everything; then every round gives each one run untimed and ``block`` timed ones."""
    import peer_models

    jobs: list[tuple[Row, Callable[[Any], object] | None, NDArray[Any]]] = []

    def add(row: Row, build: Callable[..., Any], *given: object, frame: NDArray[Any]) -> None:
        note(f"building {row.method}, {row.encoder}, {row.setting}")
        jobs.append((row, row.attempt(lambda: build(*given)), frame))

    frame = np.random.default_rng(1).integers(0, 256, (EDGE, EDGE, 3), dtype=np.uint8)
    for encoder in ENCODERS:
        for precision in OUR_PRECISIONS:
            add(Row(OURS, encoder, precision), ours, encoder, precision, frame=frame)
    for peer in peer_models.peers(KEYS):
        model = peer_models.Converted(peer)
        for precision in peer_models.PRECISIONS:
            row = Row(peer.method, peer.encoder, precision)
            add(row, model.compiled, precision, frame=peer_models.example(peer.edge))

    for number in range(rounds):
        note(f"round {number + 1} of {rounds}")
        for row, run, frame in jobs:
            for untimed in [True] + [False] * block:
                if run is None or row.failure:
                    break
                start = time.perf_counter()
                row.attempt(lambda run=run, frame=frame: run(frame))
                if not (untimed or row.failure):
                    row.times.append(1e3 * (time.perf_counter() - start))
    return [row for row, _, _ in jobs]


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def on_one_thread(action: Callable[[], object]) -> float:
    """Seconds, with the single thread that fit gives the patches' short steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return seconds(action)
    finally:
        torch.set_num_threads(threads)


def extrapolated(choose: Callable[[int], object], steps: int) -> float:
    """Seconds to choose all keys, from choosing 1 and choosing ``1 + steps``.

    Raises
    ------
    RuntimeError
        The steps take so little beside what comes before them that they tell nothing.
    """
    choose(1)  # untimed: memory that is new to the process comes slowly
    first = seconds(lambda: choose(1))
    more = seconds(lambda: choose(1 + steps))
    if more < 2 * first:
        raise RuntimeError(f"{steps} steps are too few to extrapolate from")
    return first + (more - first) / steps * (KEYS - 1)


def measure_coresets(encoder: str, steps: int) -> list[Row]:
    """The ways to choose 10 % of the vectors of both layers, one after the other.

    Ours goes key by key for a patch, and block by block for so many vectors as PatchCore's. The row
    key by key is the same code for both, and its steps all take the same time.
    """
    import peer_models

    layers = [features(PICTURES, channels, edge) for channels, edge in LAYERS[encoder]]
    share = f"{steps} of {KEYS - 1:,} steps, extrapolated"
    rows = []

    def add(method: str, setting: str, measure: Callable[..., float], *given: object) -> None:
        note(f"coreset of {method}, {encoder}")
        row = Row(method, encoder, setting)
        taken = row.attempt(lambda: measure(*given))
        row.times = [] if row.failure else [taken]
        rows.append(row)

    def by_patch() -> None:
        for layer in layers:
            height, width = layer.shape[-2:]
            cells = cells_by_patch(height, width, 7)
            (budget,) = budgets([(height, width)], len(layer), grid=7, ratio=RATIO)
            build_bank(
                lambda patch, layer=layer, cells=cells: patch_vectors(layer, cells[patch]),
                budget,
                (height, width),
                grid=7,
                sampling="equal-radius",
                distance_unit="median-radius",
                far_threshold=0.5,
            )

    add(OURS, "all", on_one_thread, by_patch)
    joined = concatenate_layers(layers).permute(0, 2, 3, 1).flatten(0, 2).contiguous()  # [M, C]
    layers.clear()

    def whole(count: int) -> None:
        GreedyCoreset(lambda: joined).extend(count)

    def key_by_key(count: int) -> None:
        with mock.patch.object(coreset, "PLAIN_VECTORS", len(joined)):
            whole(count)

    def anomalib(count: int) -> None:
        peer_models.greedy_coreset(joined, count)

    add("PatchCore 10 %, ours, key by key", share, extrapolated, key_by_key, steps)
    add("PatchCore 10 %, ours, block by block", share, extrapolated, whole, steps)
    add("PatchCore 10 %, anomalib", share, extrapolated, anomalib, steps)
    return rows


def ratio(row: Row, base: float) -> str:
    return "-" if base == float("inf") else f"{row.median / base:.2f}"


def inference_table(rows: list[Row]) -> list[str]:
    """Markdown; the faster precision of each method is bold."""
    best = {(r.method, r.encoder): r for r in sorted(rows, key=lambda r: r.median, reverse=True)}
    lines = [
        "| method | encoder | precision | ms median | ms p95 | times ours |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row.method} | {row.encoder} | {row.setting} |"
        if row.failure:
            lines.append(f"{start} failed: {row.failure} | - | - |")
            continue
        base = best.get((OURS, row.encoder), best[OURS, "Lite0"]).median
        mark = "**" if best[row.method, row.encoder] is row else ""
        p95 = np.percentile(row.times, 95)
        lines.append(f"{start} {mark}{row.median:.1f}{mark} | {p95:.1f} | {ratio(row, base)} |")
    return lines


def coreset_table(rows: list[Row]) -> list[str]:
    base = {row.encoder: row.median for row in rows if row.method == OURS}
    lines = ["| coreset | encoder | timed | seconds | times ours |", "|---|---|---|---|---|"]
    for row in rows:
        start = f"| {row.method} | {row.encoder} | {row.setting} |"
        if row.failure:
            lines.append(f"{start} failed: {row.failure} | - |")
        else:
            times = ratio(row, base[row.encoder])
            lines.append(f"{start} {row.median:,.1f} | {times} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--block", type=int, default=4, help="timed runs of each per round")
    parser.add_argument("--steps", type=int, default=500, help="greedy steps that are timed")
    parser.add_argument("--only", choices=("inference", "coreset"))
    parser.add_argument("--json", metavar="FILE", help="- is standard output")
    arguments = parser.parse_args()
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        note(f"peers: no {', '.join(lacking)} here; in an environment of its own: "
             "pip install anomalib==2.7.0 openvino onnx onnxscript")  # fmt: skip
        return 2
    import peer_models

    about = {"fapm": fapm.__version__, **peer_models.about()}
    rows: list[Row] = []
    coresets: list[Row] = []
    if arguments.only != "coreset":
        rows = measure_inference(arguments.rounds, arguments.block)
    if arguments.only != "inference":
        coresets = [r for encoder in LAYERS for r in measure_coresets(encoder, arguments.steps)]

    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    if rows:
        lines += inference_table(rows)
        lines += ["", f"Bold: the faster precision, of {arguments.rounds} rounds of "
                  f"{arguments.block} runs in turns. Times ours: of FAPM's faster precision with "
                  "the same encoder, else with Lite0. 224 px; EfficientAD 256 px.", ""]  # fmt: skip
    if coresets:
        lines += coreset_table(coresets)
        lines += ["", f"PatchCore: {KEYS:,} of {VECTORS:,} vectors of both layers joined. FAPM: 10 "
                  "% of either layer's vectors in 49 patches, equal-radius. Where it says so, the "
                  "seconds are extrapolated: every step takes as long as the last (not quite "
                  "so block by block)."]  # fmt: skip
    print("\n".join(lines), file=sys.stderr if arguments.json == "-" else sys.stdout)
    if arguments.json:
        figures = {
            "about": about,
            "inference_ms": [asdict(row) for row in rows],
            "coreset_s": [asdict(row) for row in coresets],
        }
        text = json.dumps(figures, indent=2)
        if arguments.json == "-":
            print(text)
        else:
            Path(arguments.json).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
