"""Defects among the good pictures: are they found, and what do they cost with and without --robust?

    python benchmarks/contamination.py [DATA_ROOT] [--seeds 3] [--only NAME ...] [--resize 224]

Defective test pictures are planted among the training pictures, so that they are 0, 5, 10 or 20 %
of them (fewer where the set has no more: ten are left to test with). *In the first 10 %*: how many
of the planted rank in the first tenth of ``fapm audit`` (of as many as fit there). *Removed*:
defects and good pictures that ``--robust`` leaves out, which is decided without knowing the share.
Image AUROC is of the test pictures without those planted. Means over the seeds. DATA_ROOT holds
data sets in any layout that ``fapm evaluate`` reads.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

import fapm
from fapm.config import Config
from fapm.datasets.loading import load_dataset
from fapm.engines.base import Runtime
from fapm.fitting.audit import audit
from fapm.measure.metrics import auroc

DATA_SETS = ("mvtec/bottle", "mvtec/transistor", "magnetic_tile", "screw")
SHARES = (0.0, 0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resize", type=int, default=224)
    parser.add_argument("--only", nargs="+", default=DATA_SETS)
    arguments = parser.parse_args()
    print("| data set | planted | in the first 10 % | removed: defects | removed: good "
          "| AUROC | AUROC robust |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for name in arguments.only:
        data = load_dataset(arguments.root / name)
        train = [sample.path for sample in data.train if sample.label != 1]
        good = [sample.path for sample in data.test if sample.label == 0]
        defects = [sample.path for sample in data.test if sample.label == 1]
        for share in SHARES:
            count = min(round(share * len(train) / (1 - share)), len(defects) - 10)
            rows = []
            for seed in range(arguments.seeds if count else 1):
                chosen = set(
                    np.random.default_rng(seed).choice(len(defects), count, False).tolist()
                )
                planted = {defects[i] for i in chosen}
                left = [path for i, path in enumerate(defects) if i not in chosen]
                given = sorted([*train, *planted])
                found = audit(given, Config.create(resize=arguments.resize), Runtime())
                # By position: names are the same below several folders.
                ranked = [given[found.sources[i]] for i in found.order]
                top = ranked[: math.ceil(len(given) / 10)]
                out = {given[found.sources[i]] for i in np.flatnonzero(found.found.outlying)}
                points = []
                for robust in (False, True):
                    detector = fapm.fit(given, robust=robust, resize=arguments.resize)
                    scores = detector.score([*good, *left])
                    points.append(100 * auroc([0] * len(good) + [1] * len(left), scores))
                hit = len(planted & set(top)) / max(1, min(count, len(top)))
                rows.append((100 * hit, len(out & planted), len(out - planted), *points))
            hit, removed, lost, plain, kept = np.mean(rows, axis=0)
            planted_share = 100 * count / (count + len(train))
            first = f"{hit:.0f} %" if count else "-"
            print(
                f"| {name} | {count} ({planted_share:.0f} %) | {first} "
                f"| {removed:.1f} | {lost:.1f} of {len(train)} | {plain:.2f} | {kept:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
