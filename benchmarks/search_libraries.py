"""The search of one frame: our compiled graph beside flat indexes of FAISS and usearch.

    pip install faiss-cpu usearch   # into an environment that has fapm[fit]
    python benchmarks/search_libraries.py [--pictures 209] [--rounds 30] [--threads 2]

One flat (exact) index for each patch of each layer, as FAPM's memory is; the nearest key of every
cell of a frame. Keys are equally many in all patches, 10 % of the vectors of ``--pictures``
pictures. Ours also pools, makes the map, and orders the worst cell's keys in float. Features are
synthetic: the time of an exact search does not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from usearch.index import search as usearch_search

from fapm.config import Config
from fapm.engines import openvino_engine as openvino
from fapm.graph.layer import SearchPrecision
from fapm.graph.search import write_search
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import cells_by_patch

SHAPES = {
    "Lite0": ((40, 28, 28), (112, 14, 14)),
    "WideResNet50": ((512, 28, 28), (1024, 14, 14)),
}
GRID = 7
Vectors = NDArray[np.float32]


def make_bank(shape: tuple[int, int, int], pictures: int, rng: np.random.Generator) -> MemoryBank:
    channels, height, width = shape
    patches = GRID * GRID
    keys = -(-pictures * height * width // (10 * patches))
    return MemoryBank(
        keys=rng.normal(size=(patches * keys, channels)).astype(np.float32),
        offsets=np.arange(patches + 1) * keys,
        pictures=np.zeros(patches * keys, np.int64),
        cells=np.zeros(patches * keys, np.int64),
        radii=np.ones(patches, np.float32),
        unit=1.0,
        height=height,
        width=width,
        grid=GRID,
    )


def by_patch(bank: MemoryBank, features: Vectors) -> list[tuple[Vectors, Vectors]]:
    """Per patch its cells ``[V, C]`` and its keys ``[K, C]``."""
    cells = features[0].reshape(len(features[0]), -1).T
    return [
        (np.ascontiguousarray(cells[own]), bank.keys[bank.offsets[p] : bank.offsets[p + 1]])
        for p, own in enumerate(cells_by_patch(bank.height, bank.width, bank.grid))
    ]


def ours(
    banks: list[MemoryBank], features: list[Vectors], precision: SearchPrecision, threads: int
) -> Callable[[], object]:
    config = Config.create()
    shapes = [(f.shape[1], f.shape[2], f.shape[3]) for f in features]
    model = write_search(banks, config, shapes, precision).SerializeToString()
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    core = openvino.core()
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    return lambda: request.infer(dict(enumerate(features)), share_inputs=True)


def with_faiss(pairs: list[tuple[Vectors, Vectors]], threads: int) -> Callable[[], list[Vectors]]:
    faiss.omp_set_num_threads(threads)
    indexes = []
    for _, keys in pairs:
        index = faiss.IndexFlatL2(keys.shape[1])
        index.add(keys)
        indexes.append(index)
    return lambda: [
        index.search(cells, 1)[0][:, 0] for index, (cells, _) in zip(indexes, pairs, strict=True)
    ]


def with_usearch(
    pairs: list[tuple[Vectors, Vectors]], kind: str, threads: int
) -> Callable[[], list[Vectors]]:
    if kind == "i8":
        pairs = [(as_i8(cells), as_i8(keys)) for cells, keys in pairs]
    return lambda: [
        usearch_search(keys, cells, 1, "l2sq", exact=True, threads=threads).distances[:, 0]
        for cells, keys in pairs
    ]


def as_i8(vectors: Vectors) -> Any:
    return np.clip(np.rint(vectors * 25), -127, 127).astype(np.int8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=209)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    threads = arguments.threads
    print("| encoder | search | ms median | times ours in fp32 |")
    print("|---|---|---|---|")
    for encoder, shapes in SHAPES.items():
        rng = np.random.default_rng(0)
        banks = [make_bank(shape, arguments.pictures, rng) for shape in shapes]
        features = [rng.normal(size=(1, *shape)).astype(np.float32) for shape in shapes]
        pairs = [pair for b, f in zip(banks, features, strict=True) for pair in by_patch(b, f)]
        flat, exact = with_faiss(pairs, threads), with_usearch(pairs, "f32", threads)
        for (cells, keys), found, same in zip(pairs, flat(), exact(), strict=True):
            least = ((cells[:, None].astype(np.float64) - keys) ** 2).sum(axis=2).min(axis=1)
            np.testing.assert_allclose(found, least, rtol=1e-3)
            np.testing.assert_allclose(same, least, rtol=1e-3)
        searches = {
            "ours, fp32 (with pooling, score and map)": ours(banks, features, "fp32", threads),
            "ours, int8 (with pooling, score and map)": ours(banks, features, "int8", threads),
            "FAISS IndexFlatL2, fp32": flat,
            "usearch exact, fp32": exact,
            "usearch exact, i8": with_usearch(pairs, "i8", threads),
        }
        times: dict[str, list[float]] = {name: [] for name in searches}
        for _ in range(arguments.rounds):
            for name, run in searches.items():
                run()
                start = time.perf_counter()
                run()
                times[name].append(1000 * (time.perf_counter() - start))
        base = statistics.median(times["ours, fp32 (with pooling, score and map)"])
        for name, taken in times.items():
            median = statistics.median(taken)
            print(f"| {encoder} | {name} | {median:.2f} | {median / base:.2f} |", flush=True)


if __name__ == "__main__":
    main()
