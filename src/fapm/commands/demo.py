"""``fapm demo``: the main job on real pictures that anyone can install."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fapm import console, demo, images, sinks
from fapm.commands.shared import Quiet, fit_detector, save_report
from fapm.config import Config
from fapm.engines import Runtime
from fapm.files import make_directory
from fapm.options import config_options, one_line_errors, runtime_options
from fapm.streams import print_line


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
    from fapm.evaluation import evaluate, judge

    cells = demo.load_solar_cells(config.seed)
    make_directory(output)
    detector, seconds = fit_detector(cells.train, config, runtime, images.MAX_PIXELS, quiet)
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
    kept = demo.first_defects(found.samples)
    part = judge(detector, [found.samples[i] for i in kept], [found.results[i] for i in kept], None)
    if part.image and part.counts:
        print_line(
            f"Of the {demo.FIRST_DEFECTS} defective cells that come first in the data set, which "
            f"have the coarser defects: image auroc {part.image.auroc:.4f}, caught "
            f"{part.counts.true_positives}."
        )
