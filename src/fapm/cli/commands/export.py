"""``fapm export``: the graph for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fapm.cli.options import one_line_errors
from fapm.cli.shared import MaxPixels
from fapm.datasets.folders import list_images
from fapm.frames.preparation import readable_frames
from fapm.pictures import codec
from fapm.system.streams import print_line


@one_line_errors
def export_command(
    model: Annotated[Path, typer.Argument(help="a bundle written by fapm fit")],
    folder: Annotated[Path, typer.Argument(help="folder to write into")],
    to: Annotated[str, typer.Option(help="onnx | openvino")] = "openvino",
    pictures: Annotated[
        Path | None, typer.Option(help="folder or picture to prove it on; default: synthetic ones")
    ] = None,
    max_pixels: MaxPixels = codec.MAX_PIXELS,
) -> None:
    """Write the graph for other programs, and prove that it scores the same."""
    from fapm.detector import Detector
    from fapm.inspection.export import PROOF, export, sample_frames

    detector = Detector.load(model, max_pixels=max_pixels)
    if pictures is None:
        frames = sample_frames(detector.fitted_)
    else:
        frames = readable_frames(
            list_images(pictures),
            detector.fitted_.preparation,
            count=PROOF,
            max_pixels=max_pixels,
        )[1]
    difference = export(detector.snapshot(), to, folder, frames)
    print_line(
        f"{folder}: largest score difference {difference:.1e} on "
        f"{len(frames)} {'synthetic frames' if pictures is None else 'pictures'}"
    )
