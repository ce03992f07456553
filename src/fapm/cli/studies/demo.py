"""``fapm demo``: real solar cells that anyone can install."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from fapm.cli import console
from fapm.cli.options import config_options, one_line_errors, runtime_options
from fapm.cli.shared import Quiet, fit_detector, save_report
from fapm.config import Config
from fapm.datasets.loading import Sample
from fapm.engines.base import Runtime
from fapm.pictures import codec
from fapm.reports import sinks
from fapm.system.files import make_directory
from fapm.system.imports import needed_for
from fapm.system.streams import print_line

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
            Sample(Path("cells", f"cell{i + 1:04d}.png"), label, (), ("good", "defect")[label])
            for i, label in test
        ],
    )


def first_defects(samples: Sequence[Sample]) -> list[int]:
    """Positions of all good samples and of the first ``FIRST_DEFECTS`` defective ones."""
    good = [i for i, sample in enumerate(samples) if sample.label == 0]
    return good + [i for i, sample in enumerate(samples) if sample.label == 1][:FIRST_DEFECTS]


@one_line_errors
@config_options
@runtime_options
def demo_command(
    config: Config,
    runtime: Runtime,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write into")] = Path(
        "demo"
    ),
    quiet: Quiet = False,
) -> None:
    """Find broken solar cells: fit, inspect and report on real pictures."""
    from fapm.measure.evaluate import evaluate, judge

    cells = load_solar_cells(config.seed)
    make_directory(output)
    detector, seconds = fit_detector(cells.train, config, runtime, codec.MAX_PIXELS, quiet)
    detector.save(output / "solar-cells.fapm")
    with console.progress(quiet) as advance:
        found = evaluate(
            detector,
            cells.samples,
            pictures=cells.test,
            progress=lambda done, total: advance("inspect", done, total),
        )
    bundle_bytes = (output / "solar-cells.fapm").stat().st_size
    figures = sinks.figures("solar cells", detector, found, seconds, bundle_bytes)
    summary = {"data set": "ELPV monocrystalline solar cells (CC BY-NC-SA 4.0)"}
    save_report(
        output, "FAPM on solar cells", detector, found, summary, (), quiet, pictures=cells.test
    )
    console.print_figures(figures, detector, found)
    kept = first_defects(found.samples)
    part = judge(detector, [found.samples[i] for i in kept], [found.results[i] for i in kept], None)
    if part.image and part.counts:
        print_line(
            f"Of the {FIRST_DEFECTS} defective cells that come first in the data set, which "
            f"have the coarser defects: image auroc {part.image.auroc:.4f}, caught "
            f"{part.counts.true_positives}."
        )
