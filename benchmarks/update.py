"""Learning on the line: do confirmed false alarms stop, and are real defects still found?

    python benchmarks/update.py [DATA_ROOT] [--alarms 10] [--only NAME ...]

Half of the good test pictures (every other one) play the line: the ones that score highest are
confirmed as good and given to ``update``. The other half, and all defects, judge the detector
before and after. ``recur`` counts confirmed pictures that still get a verdict other than good; the
last rows grow a memory from a part of the training pictures, in steps, and compare it with a fit on
all of them. DATA_ROOT holds data sets in any layout that ``fapm evaluate`` reads.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import fapm
from fapm import Detector
from fapm.datasets.loading import load_dataset
from fapm.measure.metrics import auroc

DATA_SETS = ("mvtec/bottle", "mvtec/transistor", "magnetic_tile", "screw")


def judged(detector: Detector, good: list[Path], defects: list[Path]) -> tuple[float, int, int]:
    """Image AUROC in percent, defects caught and good pictures called defects."""
    passed, found = detector.score(good), detector.score(defects)
    labels = [0] * len(good) + [1] * len(defects)
    caught, alarms = (int((s > detector.threshold_).sum()) for s in (found, passed))
    return 100 * auroc(labels, np.concatenate([passed, found])), caught, alarms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--alarms", type=int, default=10)
    parser.add_argument("--part", type=float, default=0.25, help="of the pictures to fit on first")
    parser.add_argument("--only", nargs="+", default=DATA_SETS)
    arguments = parser.parse_args()
    print("| data set | step | pictures | keys | threshold | image AUROC | caught | false alarms "
          "| recur, before | recur, after | seconds |")  # fmt: skip
    print("|" + "---|" * 11)
    for name in arguments.only:
        data = load_dataset(arguments.root / name)
        train = [sample.path for sample in data.train if sample.label != 1]
        good = [sample.path for sample in data.test if sample.label == 0]
        defects = [sample.path for sample in data.test if sample.label == 1]
        line, others = good[::2], good[1::2]

        def row(step: str, detector: Detector, confirmed: list[Path], before: int | str,
                seconds: float, name: str = name, others: list[Path] = others,
                defects: list[Path] = defects) -> None:  # fmt: skip
            points, caught, alarms = judged(detector, others, defects)
            after = sum(p.verdict != "good" for p in detector.predict(confirmed))
            keys = sum(len(bank.keys) for bank in detector.fitted_.banks)
            print(
                f"| {name} | {step} | {len(detector.fitted_.pictures)} | {keys:,} "
                f"| {detector.threshold_:.3g} | {points:.2f} | {caught}/{len(defects)} "
                f"| {alarms}/{len(others)} | {before} | {after if confirmed else '-'} "
                f"| {seconds:.1f} |",
                flush=True,
            )

        started = time.perf_counter()
        detector = fapm.fit(train)
        row("fit", detector, [], "-", time.perf_counter() - started)
        scores = detector.score(line)
        confirmed = [line[i] for i in np.argsort(-scores)[: arguments.alarms]]
        before = sum(p.verdict != "good" for p in detector.predict(confirmed))
        started = time.perf_counter()
        detector.update(confirmed)
        seconds = time.perf_counter() - started
        row(
            f"update with {len(confirmed)} that score highest", detector, confirmed, before, seconds
        )

        rows = np.random.default_rng(0).permutation(len(train))
        shuffled = [train[i] for i in rows]
        first = round(arguments.part * len(train))
        started = time.perf_counter()
        grown = fapm.fit(shuffled[:first])
        row("fit on a part", grown, [], "-", time.perf_counter() - started)
        started = time.perf_counter()
        for begin in range(first, len(train), first):
            grown.update(shuffled[begin : begin + first])
        row("updates with the rest", grown, [], "-", time.perf_counter() - started)
        started = time.perf_counter()
        row("fit on all, same order", fapm.fit(shuffled), [], "-", time.perf_counter() - started)


if __name__ == "__main__":
    main()
