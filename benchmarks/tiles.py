"""Small defects in large pictures: resized as a whole against cut into tiles.

    python benchmarks/tiles.py [DATA_ROOT] [--what planted trays] [--sizes 3 5 8 12]

DATA_ROOT holds data sets in any layout that ``fapm evaluate`` reads.

*planted*: fits on the training pictures, then plants a defect of some pixels into every good test
picture: in turn a darker spot, a brighter spot, and a scratch three times as long and a third as
wide, at random places of the middle half, the same for every setting. *trays*: pictures of many
parts side by side, 7 x 5 of 512 pixels each, chosen at random from the training pictures (30 trays)
or from the good test pictures (20, and 40 more with one part that has a real defect).

Both print image AUROC of pictures with a defect against those without, and how many score above all
of those without. Times are medians from array to prediction; memory is the process's peak so far.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import fapm
from fapm.datasets.loading import load_dataset
from fapm.measure.metrics import auroc
from fapm.measure.timing import peak_mb
from fapm.pictures import codec

Picture = NDArray[np.uint8]

PLANTED = ("mvtec/bottle", "mvtec/transistor", "screw")
TRAYS = ("mvtec/transistor", "mvtec/bottle")
SETTINGS: dict[str, dict[str, Any]] = {
    "resized to 224": {},
    "resized to 336": {"resize": 336},
    "resized to 512": {"resize": 512},
    "tiles of 224": {"tile": 224},
    "tiles of 512": {"tile": 512, "overlap": 64},
    "tiles of 512, half size": {"tile": 512, "overlap": 64, "tile_scale": 0.5},
    "tiles of 224, half size": {"tile": 224, "tile_scale": 0.5},
}
CONTRAST = 60  # grey levels
ROWS, COLUMNS, EDGE = 5, 7, 512


def planted(picture: Picture, size: int, number: int) -> Picture:
    """The picture with a defect of ``size`` pixels; the same for the same ``number``."""
    rng = np.random.default_rng((number, size))
    height, width = picture.shape[:2]
    y, x = (int(edge * rng.uniform(0.25, 0.75)) for edge in (height, width))
    mask = np.zeros((height, width), np.float32)
    kind = number % 3
    if kind < 2:
        cv2.circle(mask, (16 * x, 16 * y), 8 * size, 1.0, -1, cv2.LINE_AA, 4)
    else:
        angle = rng.uniform(0, np.pi)
        reach = 1.5 * size * np.array([np.cos(angle), np.sin(angle)])
        ends = [np.rint(16 * (np.array([x, y]) + sign * reach)).astype(int) for sign in (-1, 1)]
        start, end = (tuple(place.tolist()) for place in ends)
        cv2.line(mask, start, end, 1.0, max(1, size // 3), cv2.LINE_AA, 4)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.7)[:, :, None]
    change = CONTRAST * (1 if kind == 1 else -1)
    if kind == 2 and picture[y, x].mean() < 2 * CONTRAST:
        change = -change  # a dark scratch on black would be none
    return np.asarray((picture + change * mask).round().clip(0, 255), np.uint8)


def tray(rng: np.random.Generator, good: Sequence[Path], defect: Path | None = None) -> Picture:
    """Parts side by side; one of them is ``defect``."""
    chosen = [good[i] for i in rng.integers(0, len(good), ROWS * COLUMNS)]
    if defect is not None:
        chosen[int(rng.integers(ROWS * COLUMNS))] = defect
    parts = np.stack([codec.read_image(path) for path in chosen])
    rows = parts.reshape(ROWS, COLUMNS, EDGE, EDGE, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(rows.reshape(ROWS * EDGE, COLUMNS * EDGE, 3))


def compared(found: Any, good: Any) -> str:
    """AUROC in percent, and how many are above all good ones."""
    labels = [0] * len(good) + [1] * len(found)
    above = int((np.asarray(found) > max(good)).sum())
    return f"{100 * auroc(labels, [*good, *found]):.1f}, {above}/{len(found)}"


def judge(detector: fapm.Detector, pictures: Sequence[Picture]) -> tuple[list[float], float]:
    """Scores, and the median time of one in ms."""
    scores, seconds = [], []
    for picture in pictures:
        start = time.perf_counter()
        scores.append(detector.predict(picture).score)
        seconds.append(time.perf_counter() - start)
    return scores, 1000 * statistics.median(seconds)


def measure(
    name: str,
    setting: str,
    train: Sequence[Picture | Path],
    good: Sequence[Picture],
    groups: Sequence[Callable[[], Sequence[Picture]]],
) -> None:
    start = time.perf_counter()
    detector = fapm.fit(train, **SETTINGS[setting])
    fit_seconds = time.perf_counter() - start
    detector.predict(good[0])
    scores, milliseconds = judge(detector, good)
    cells = [compared(judge(detector, group())[0], scores) for group in groups]
    keys = sum(len(bank.keys) for bank in detector.fitted_.banks)
    print(
        f"| {name} | {setting} | {detector.fitted_.layout.tiles} | {keys:,} | {fit_seconds:.0f} "
        f"| {milliseconds:.1f} | {peak_mb():,.0f} | {' | '.join(cells)} |",
        flush=True,
    )


def header(*groups: str) -> None:
    print(f"\n| data set | setting | tiles | keys | fit s | ms | peak MB | {' | '.join(groups)} |")
    print("|---|---|---|---|---|---|---|" + "---|" * len(groups))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("root", type=Path, nargs="?", default=shared)
    parser.add_argument("--what", nargs="+", default=("planted", "trays"))
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=(3, 5, 8, 12))
    parser.add_argument("--settings", nargs="+", default=tuple(SETTINGS), choices=SETTINGS)
    arguments = parser.parse_args()
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores")
    if "planted" in arguments.what:
        header("real defects", *(f"{size} px" for size in arguments.sizes))
        for name in arguments.only or PLANTED:
            data = load_dataset(arguments.root / name)
            good = [codec.read_image(sample.path) for sample in data.test if sample.label == 0]
            real = [codec.read_image(sample.path) for sample in data.test if sample.label == 1]

            def changed(size: int, good: list[Picture] = good) -> Callable[[], list[Picture]]:
                return lambda: [planted(picture, size, i) for i, picture in enumerate(good)]

            groups = [lambda real=real: real, *map(changed, arguments.sizes)]
            for setting in arguments.settings:
                if SETTINGS[setting].get("tile_scale", 1) == 1:
                    train = [sample.path for sample in data.train]
                    measure(name, setting, train, good, groups)
    if "trays" in arguments.what:
        header("one part in 35 is defective")
        for name in arguments.only or TRAYS:
            data = load_dataset(arguments.root / name)
            rng = np.random.default_rng(0)
            train = [tray(rng, [sample.path for sample in data.train]) for _ in range(30)]
            fine = [sample.path for sample in data.test if sample.label == 0]
            odd = [sample.path for sample in data.test if sample.label == 1]
            good = [tray(rng, fine) for _ in range(20)]
            bad = [tray(rng, fine, odd[i % len(odd)]) for i in range(40)]
            for setting in arguments.settings:
                measure(f"{name}, {COLUMNS} x {ROWS}", setting, train, good, [lambda bad=bad: bad])


if __name__ == "__main__":
    main()
