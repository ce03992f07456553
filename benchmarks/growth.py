"""How a fit and an inspection grow with the number of good pictures.

    python benchmarks/growth.py [--pictures 100,300,1000] [--uncapped] [--json FILE]
    python benchmarks/growth.py --data DIR     # a real folder of good pictures, encoder included

Without DIR the features are synthetic, in the shapes of the preset ``fast`` and made batch by
batch, so that what is measured is memory bank and leave-one-out alone. Each row is a process of its
own, so that peak memory is its own too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from fapm.bundle import file as bundle
from fapm.bundle.fitted import Fitted
from fapm.config import Config
from fapm.datasets.folders import list_images
from fapm.encoder.network import Encoder
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from fapm.engines.opening import open_engine
from fapm.fitting import fit as fitting
from fapm.fitting import preparing
from fapm.pictures import codec
from fapm.pictures.sources import Picture
from fapm.progress import Listener
from fapm.training import features as encoding

SHAPES = ((40, 28, 28), (112, 14, 14))
_PIXELS = 32  # synthetic pictures are blank and only counted


def synthetic_features(first: int, count: int) -> list[torch.Tensor]:
    """Features of pictures ``first ...``, a mixture over 24 directions plus noise, by layer."""
    layers = []
    for number, (channels, height, width) in enumerate(SHAPES):
        fixed = torch.Generator().manual_seed(number)
        directions = torch.randn(24, channels, generator=fixed)
        generator = torch.Generator().manual_seed(1000 * first + number)
        weights = torch.randn(count, height, width, 24, generator=generator)
        noise = torch.randn(count, height, width, channels, generator=generator)
        mixed = (0.3 * weights @ directions + 0.1 * noise).relu_()  # [B, H, W, C]
        layers.append(mixed.permute(0, 3, 1, 2))
    return layers


def fit_synthetic(pictures: int, config: Config, encoder: Encoder) -> tuple[Fitted, float]:
    """Fit on synthetic features; what came of it, and seconds without making the features."""
    made, spent = 0, 0.0

    class Synthetic:
        """Stands for the encoder."""

        name = "synthetic"

        def features(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
            nonlocal made, spent
            start = time.perf_counter()
            layers = synthetic_features(made, len(frames))
            made += len(frames)
            spent += time.perf_counter() - start
            return [layer.numpy() for layer in layers]

    blank = np.zeros((_PIXELS, _PIXELS, 3), np.uint8)
    with (
        patch.object(preparing, "open_encoder", lambda *_: Synthetic()),
        patch.object(encoding, "aggregate", lambda raw, *_: raw),
    ):
        start = time.perf_counter()
        fitted = fitting.fit([blank] * pictures, config, encoder, Runtime())
        return fitted, time.perf_counter() - start - spent


def varied(found: Sequence[Path], count: int, folder: Path) -> list[Picture]:
    """``count`` pictures; beyond those found, copies shifted and lit anew, no two alike."""
    chosen: list[Picture] = list(found[:count])
    for number in range(len(found), count):
        rng = np.random.default_rng(number)
        picture = codec.read_image(found[number % len(found)])
        shift = rng.integers(-8, 9, 2).tolist()
        lit = np.roll(picture, shift, axis=(0, 1)) * rng.uniform(0.9, 1.1)
        path = folder / f"{number:06d}.jpg"
        path.write_bytes(codec.encode_jpeg(lit.clip(0, 255).astype(np.uint8), quality=92))
        chosen.append(path)
    return chosen


def latency(fitted: Fitted, runs: int = 200) -> float:
    """Median milliseconds from a frame to its score and map, with the compiled graph."""
    engine = open_engine(fitted, Runtime())
    frame = np.zeros((fitted.config.input_size, fitted.config.input_size, 3), np.uint8)
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        engine.run([frame])
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken)


def measure(pictures: int, data: Path | None, overrides: dict[str, Any]) -> dict[str, Any]:
    """One row, in this process."""
    # Synthetic pictures are small, so that reading them takes no time; maps are of that size too.
    config = Config.create("fast", **overrides)
    encoder = create_encoder(config)
    if data is None:
        fitted, seconds = fit_synthetic(pictures, config, encoder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            chosen = varied(list_images(data), pictures, Path(folder))
            start = time.perf_counter()
            listener = Listener(remark=lambda text: print(text, file=sys.stderr))
            fitted = fitting.fit(chosen, config, encoder, Runtime(), listener=listener)
            seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bundle.fapm")
        bundle.save(fitted, path)
        size = path.stat().st_size
    return {
        "pictures": len(fitted.pictures),
        "keys": sum(len(bank.keys) for bank in fitted.banks),
        "fit_seconds": seconds,
        "peak_gb": peak * (1 if sys.platform == "darwin" else 1024) / 1e9,
        "bundle_mb": size / 1e6,
        "latency_ms": latency(fitted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", default="100,300,1000,3000,10000")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--uncapped", action="store_true", help="the ratio of all vectors, too")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    counts = [int(n) for n in arguments.pictures.split(",")]
    if arguments.row:
        print(json.dumps(measure(counts[0], arguments.data, json.loads(arguments.row))))
        return
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n"
    )
    print("| good pictures | budget | keys | fit s | peak GB | bundle MB | latency ms |")
    print("|---|---|---|---|---|---|---|")
    settings: dict[str, dict[str, Any]] = {"default": {}}
    if arguments.uncapped:
        settings["10 % of all"] = {"budget_pictures": None}
    rows = []
    for name, overrides in settings.items():
        for count in counts:
            command = [sys.executable, __file__, "--pictures", str(count),
                       "--row", json.dumps(overrides)]  # fmt: skip
            if arguments.data:
                command += ["--data", str(arguments.data)]
            finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            row = {"budget": name, **json.loads(finished.stdout)}
            rows.append(row)
            print(
                f"| {row['pictures']:,} | {name} | {row['keys']:,} | {row['fit_seconds']:.1f} | "
                f"{row['peak_gb']:.2f} | {row['bundle_mb']:.1f} | {row['latency_ms']:.1f} |",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
