"""How far accuracy moves with the order of the training pictures, and with precision and weighting.

    python benchmarks/stability.py [DATA_ROOT] [--orders 5] [--only NAME ...]

A greedy coreset depends on which picture comes first, and faint defects depend on the coreset: a
single fit says little about a setting that changes a point of AUROC. Each row is the mean of fits
on the same pictures in shuffled orders (the first: as they are). DATA_ROOT holds data sets in any
layout that ``fapm evaluate`` reads (default: ../shared/data).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fapm
from fapm.bundle.fitted import Fitted
from fapm.datasets.loading import load_dataset
from fapm.engines.base import Runtime
from fapm.engines.opening import open_engine
from fapm.frames.layout import layout_of
from fapm.frames.preparation import Frame, Preparation
from fapm.measure.metrics import auroc
from fapm.pictures import codec

DATA_SETS = ("mvtec/bottle", "mvtec/transistor", "magnetic_tile", "screw")
PRECISIONS = ("fp32", "bf16", "auto")
NEIGHBOURS = (1, 4)


def scores(fitted: Fitted, paths: list[Path]) -> NDArray[np.float32]:
    """Image scores, float32 ``[N]``."""
    engine = open_engine(fitted, Runtime())
    read = [
        Preparation(layout_of(fitted.config), fitted.encoder.spec.interpolation).read(
            path, max_pixels=codec.MAX_PIXELS
        )
        for path in paths
    ]
    return np.concatenate([engine.run([f.pixels]).scores for f in read if isinstance(f, Frame)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=DATA_SETS)
    arguments = parser.parse_args()
    print("| data set | precision | b | image AUROC, mean | deviation | lowest | highest |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.only:
        data = load_dataset(arguments.root / name)
        good = [sample.path for sample in data.train if sample.label != 1]
        asked = [sample.path for sample in data.test]
        labels = [sample.label for sample in data.test]
        for precision in PRECISIONS:
            found: dict[int, list[float]] = {count: [] for count in NEIGHBOURS}
            for order in range(arguments.orders):
                rows = np.random.default_rng(order).permutation(len(good))
                pictures = [good[i] for i in (rows if order else range(len(good)))]
                fitted = fapm.fit(pictures, precision=precision).fitted_
                for count, values in found.items():
                    config = fitted.config.model_copy(update={"neighbours": count})
                    values.append(
                        100 * auroc(labels, scores(replace(fitted, config=config), asked))
                    )
            kind = fitted.encoder.precision
            shown = kind if precision == kind else f"{precision}: {kind}"
            for count, values in found.items():
                print(
                    f"| {name} | {shown} | {count} | {np.mean(values):.2f} | {np.std(values):.2f} "
                    f"| {min(values):.2f} | {max(values):.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
