"""What ``--align auto`` decides, on how many good pictures, and how close it is to its limits.

    python benchmarks/align_auto.py [DATA_ROOT] [--only NAME ...] [--counts 30 60 120] [--draws 2]
                                    [--turned DEGREES]

DATA_ROOT holds data sets in any layout that ``fapm evaluate`` reads (default: ../shared/data).
Draws training pictures at random, each number of them several times, and all of them once. With
``--turned`` each is turned by up to so many degrees first, its border mirrored.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from fapm.config import Config
from fapm.datasets.loading import load_dataset
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from fapm.fitting.alignment import choose_alignment
from fapm.fitting.precision import choose_encoder
from fapm.frames.layout import layout_of
from fapm.pictures import codec

DATA_SETS = ("mvtec/bottle", "mvtec/transistor", "magnetic_tile", "screw")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("root", type=Path, nargs="?", default=shared)
    parser.add_argument("--only", nargs="+", default=DATA_SETS)
    parser.add_argument("--counts", nargs="+", type=int, default=(30, 60, 120))
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--turned", type=float, default=0)
    arguments = parser.parse_args()
    config, runtime = Config(align="auto"), Runtime()
    encoder = create_encoder(config)
    for name in arguments.only:
        rng = np.random.default_rng(0)
        frames = []
        for sample in load_dataset(arguments.root / name).train:
            picture = codec.read_image(sample.path)
            height, width = picture.shape[:2]
            angle = rng.uniform(-arguments.turned, arguments.turned)
            turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
            if arguments.turned:
                picture = cv2.warpAffine(
                    picture, turn, (width, height), flags=cv2.INTER_CUBIC,
                    borderMode=cv2.BORDER_REFLECT_101,
                )  # fmt: skip
            frames.append(layout_of(config).frame(picture, encoder.spec.interpolation))
        frozen, _ = choose_encoder(encoder, config, runtime, lambda: frames[:64])  # noqa: B023
        draws = [(n, seed) for n in arguments.counts for seed in range(arguments.draws)]
        for count, seed in [*draws, (len(frames), 0)]:
            drawn = np.random.default_rng(seed).choice(len(frames), count, replace=False)
            good = [frames[i] for i in np.sort(drawn)]
            _, reason = choose_alignment(good, config, frozen, runtime)
            print(f"{name}, {count} good pictures, draw {seed}: {reason}", flush=True)


if __name__ == "__main__":
    main()
