"""How long patch-wise coreset sampling takes, at the size of the paper's first layer.

    python benchmarks/coreset.py

209 pictures, 28 x 28 cells of 512 channels, 7 x 7 patches: 49 times K = 335 of M = 3,344. The
vectors are synthetic, with the low intrinsic dimension that features have.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from datetime import date

import torch

from fapm.memory.geometry import cells_by_patch
from fapm.memory.memorise import budgets, build_bank
from fapm.memory.patches import patch_vectors


def features(pictures: int, channels: int, edge: int) -> torch.Tensor:
    """Synthetic features, float32 ``[N, C, H, W]``, a mixture over 24 directions plus noise."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(24, channels, generator=generator)
    weights = torch.randn(pictures, edge, edge, 24, generator=generator)
    noise = torch.randn(pictures, edge, edge, channels, generator=generator)
    mixed = (0.3 * weights @ directions + 0.1 * noise).relu_()  # [N, H, W, C]
    return mixed.permute(0, 3, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=209)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    store = features(arguments.pictures, arguments.channels, 28)
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    )
    cells = cells_by_patch(28, 28, 7)
    (budget,) = budgets([(28, 28)], arguments.pictures, grid=7, ratio=0.1)
    seconds: dict[str, list[float]] = {"none": [], "near-far": [], "equal-radius": []}
    keys = {}
    for _ in range(arguments.runs):
        for sampling, taken in seconds.items():
            start = time.perf_counter()
            bank = build_bank(
                lambda patch: patch_vectors(store, cells[patch]),
                budget,
                (28, 28),
                grid=7,
                sampling=sampling,
                distance_unit="median-radius",
                far_threshold=0.5,
            )
            taken.append(time.perf_counter() - start)
            keys[sampling] = len(bank.keys)
    for sampling, taken in seconds.items():
        print(f"{sampling:<14}{statistics.median(taken):6.2f} s (median of {len(taken)}), "
              f"{keys[sampling]:,} keys")  # fmt: skip


if __name__ == "__main__":
    main()
