"""``fapm export``: the graph for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fapm.options import one_line_errors


@one_line_errors
def export_command(
    model: Annotated[Path, typer.Argument(help="a bundle written by fapm fit")],
    folder: Annotated[Path, typer.Argument(help="folder to write into")],
    to: Annotated[str, typer.Option(help="onnx | openvino")] = "openvino",
) -> None:
    """Write the graph for other programs, and prove that it scores the same."""
    from fapm.detector import Detector
    from fapm.export import export, sample_frames

    detector = Detector.load(model)
    difference = export(detector, to, folder, sample_frames(detector))
    print(f"{folder}: largest score difference {difference:.1e}")
