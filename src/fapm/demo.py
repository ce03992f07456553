"""The demo: real solar cells that anyone can install."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fapm.datasets import Sample
from fapm.imports import needed_for

TRAIN = 300
# The data set's first defective cells have broken or dark areas; many of its last ones have faint
# scratches that only an expert calls defective. Both are worth knowing.
FIRST_DEFECTS = 100


@dataclass(frozen=True)
class SolarCells:
    """Monocrystalline cells of the ELPV data set (Buerhop-Lutz et al., 2018), CC BY-NC-SA 4.0.

    Attributes
    ----------
    train
        uint8 ``[H, W]`` each, cells that experts called functional.
    test, samples
        held-out functional and certainly defective cells, and what is known of them.
    """

    train: list[NDArray[np.uint8]]
    test: list[NDArray[np.uint8]]
    samples: list[Sample]


def load_solar_cells(seed: int) -> SolarCells:
    """Split the cells: ``TRAIN`` good ones to fit on, all others to judge.

    Raises
    ------
    EngineError
        The package ``elpv-dataset`` is not installed, or cannot be loaded.
    """
    with needed_for("demo", "fapm[demo]"):
        from elpv_dataset.utils import load_dataset
    images, probabilities, types = load_dataset()
    mono = types == "mono"
    good = np.flatnonzero(mono & (probabilities == 0))
    defective = np.flatnonzero(mono & (probabilities == 1))
    shuffled = np.random.default_rng(seed).permutation(good)
    train, held_out = np.sort(shuffled[:TRAIN]), np.sort(shuffled[TRAIN:])
    test = [*((i, 0) for i in held_out), *((i, 1) for i in defective)]
    return SolarCells(
        train=[images[i] for i in train],
        test=[images[i] for i, _ in test],
        samples=[
            Sample(Path("cells", f"cell{i + 1:04d}.png"), label, None, ("good", "defect")[label])
            for i, label in test
        ],
    )


def first_defects(samples: Sequence[Sample]) -> list[int]:
    """Positions of all good samples and of the first ``FIRST_DEFECTS`` defective ones."""
    good = [i for i, sample in enumerate(samples) if sample.label == 0]
    return good + [i for i, sample in enumerate(samples) if sample.label == 1][:FIRST_DEFECTS]
