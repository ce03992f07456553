"""Whether memorising good pictures at several angles helps: parts in any orientation, few or many.

    python benchmarks/rotations.py [DATA_ROOT] [--pictures 32,100,320] [--rotations 1,4,8,12]
        [--preset fast] [--ratios 0.1] [--orders 3]

Image AUROC on the data set screw, mean and deviation over shuffled orders of the training pictures
(with fewer than all, each order has other pictures). DATA_ROOT: default ../shared/data.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import fapm
from fapm.config import PRESETS
from fapm.datasets.loading import load_dataset
from fapm.measure.metrics import auroc
from stability import scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("root", type=Path, nargs="?", default=shared)
    parser.add_argument("--pictures", default="32,100,320")
    parser.add_argument("--rotations", default="1,4,8,12")
    parser.add_argument("--preset", choices=PRESETS, default="fast")
    parser.add_argument("--ratios", default="0.1")
    parser.add_argument("--orders", type=int, default=3)
    arguments = parser.parse_args()
    data = load_dataset(arguments.root / "screw")
    good = [sample.path for sample in data.train if sample.label != 1]
    asked = [sample.path for sample in data.test]
    labels = np.array([sample.label for sample in data.test])
    print("| pictures | ratio | keys | angles | image AUROC | caught | false alarms | fit s |")
    print("|---|---|---|---|---|---|---|---|")
    for pictures in map(int, arguments.pictures.split(",")):
        for ratio in map(float, arguments.ratios.split(",")):
            for rotations in map(int, arguments.rotations.split(",")):
                found, caught, alarms, seconds, keys = [], [], [], [], 0
                for order in range(arguments.orders):
                    rows = np.random.default_rng(order).permutation(len(good))[:pictures]
                    began = time.perf_counter()
                    detector = fapm.fit(
                        [good[i] for i in rows],
                        arguments.preset,
                        ratio=ratio,
                        rotations=rotations,
                    )
                    seconds.append(time.perf_counter() - began)
                    keys = sum(len(bank.keys) for bank in detector.fitted_.banks)
                    given = scores(detector.fitted_, asked)
                    found.append(100 * auroc(labels, given))
                    over = given > detector.threshold_
                    caught.append(int(over[labels == 1].sum()))
                    alarms.append(int(over[labels == 0].sum()))
                print(
                    f"| {pictures} | {100 * ratio:g} % | {keys:,} | {rotations} "
                    f"| {np.mean(found):.2f} ± {np.std(found):.2f} | {np.mean(caught):.0f} "
                    f"| {np.mean(alarms):.1f} | {statistics.median(seconds):.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
