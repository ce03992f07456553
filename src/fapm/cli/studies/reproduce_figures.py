"""``fapm reproduce figures``: the paper's figures, from data sets of one's own."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fapm.cli import console
from fapm.cli.options import config_options, one_line_errors, runtime_options
from fapm.cli.shared import MaxPixels, Quiet
from fapm.config import Config
from fapm.datasets.loading import categories, load_dataset
from fapm.engines.base import Runtime
from fapm.engines.opening import engine_name
from fapm.errors import ConfigError, DatasetError, EngineError, FapmError, ImageError
from fapm.frames.preparation import require_command
from fapm.pictures import codec
from fapm.system.files import make_directory, replaced_when_complete
from fapm.system.paths import is_directory
from fapm.system.streams import print_line

if TYPE_CHECKING:
    from fapm.reproduce.figure_data import Measured

FIGURES = ("1", "3", "4")
_NOTE_WIDTH = 138  # letters


@one_line_errors
@config_options
@runtime_options
def figures_command(
    data_root: Annotated[Path, typer.Argument(help="a data set, or a folder of data sets")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write into")],
    config: Config,
    runtime: Runtime,
    only: Annotated[str, typer.Option(help="which figures, by comma")] = ",".join(FIGURES),
    max_pixels: MaxPixels = codec.MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Draw the paper's figures 1 (speed and accuracy), 3 (keys) and 4 (heatmaps).

    Figure 1 measures the presets fast and accurate, and the settings given where they are others,
    in fp32 and, on OpenVINO, int8, and shows means over those data sets that are categories of
    MVTec AD (without any: over all). 3 and 4 are drawn for each data set with the settings given.
    All are written as PNG and SVG, what was measured for figure 1 as JSON as well.
    """
    require_command(config, "reproduce")
    wanted = only.split(",")
    if unknown := [number for number in wanted if number not in FIGURES]:
        raise ConfigError(f"only: no figure {unknown[0]!r}; choose of {', '.join(FIGURES)}")
    _refuse_missing_libraries()
    from fapm.detector import Detector
    from fapm.reproduce import figure_data, figures

    data_sets = _find_data_sets(data_root)
    make_directory(output)
    settings = _settings(config, runtime)
    measured: dict[str, dict[str, Measured]] = {}
    written: list[Path] = []
    failures: dict[str, FapmError] = {}

    @contextmanager
    def tolerant(what: str) -> Iterator[None]:
        """A data set that cannot be used does not stop the others."""
        try:
            yield
        except (DatasetError, ImageError) as error:
            failures[what] = error

    for name, (root, category) in data_sets.items():
        with console.progress(quiet) as advance, tolerant(name):
            data = load_dataset(root, category=category)
            if not data.test:
                raise DatasetError(f"{root}: no test pictures in this {data.layout} layout")
            if "4" in wanted:
                with tolerant(f"figure 4 of {name}"):
                    detector = Detector(config, runtime=runtime, max_pixels=max_pixels)
                    detector.fit(data.good, progress=advance)
                    shown = figure_data.examples(detector, data)
                    figure = figures.figure4(shown, name)
                    written += figures.save(figure, output, f"figure4-{name}")
            if "3" in wanted:
                with tolerant(f"figure 3 of {name}"):
                    found = figure_data.clusters(
                        data, config, runtime, max_pixels=max_pixels, progress=advance
                    )
                    written += figures.save(figures.figure3(found, name), output, f"figure3-{name}")
            if "1" in wanted:
                with tolerant(f"{name} in figure 1"):
                    measured[name] = figure_data.measure(
                        data, settings, runtime, max_pixels=max_pixels, progress=advance
                    )
    if measured:
        encoders = {setting.encoder for setting in settings.values()}
        written += _speed_and_accuracy(measured, encoders, engine_name(runtime), output)
    if not written:
        raise next(iter(failures.values()))
    for what, error in failures.items():
        console.remark(quiet, f"left out, {what}: {error}")
    for path in written:
        print_line(str(path))


def _speed_and_accuracy(
    measured: dict[str, dict[str, Measured]], encoders: set[str], engine: str, output: Path
) -> list[Path]:
    """Write figure 1, and what it shows as JSON.

    Published figures are means over MVTec AD: where there are categories of it, ours are means over
    those alone, and other data sets are in the JSON only.
    """
    from fapm.measure.timing import machine
    from fapm.reproduce import figure_data, figures, published

    known = {name: found for name, found in measured.items() if name in published.CATEGORIES}
    shown = known or measured
    points = figure_data.points(list(shown.values()))
    here = machine()
    note = "\n".join(
        (
            *textwrap.wrap(
                f"Ours, filled: {' and '.join(sorted(encoders))}, mean over {', '.join(shown)} "
                f"({len(known)} of MVTec AD's 15 categories), {here['machine']}, {engine}, "
                f"{here['date']}.",
                _NOTE_WIDTH,
            ),
            *textwrap.wrap(
                "Published, hollow: mean over all 15 categories, Table 1 of the paper; FAPM and "
                "PatchCore are the paper's own measurements with Wide-ResNet50 on a Titan RTX, the "
                "others cited there.",
                _NOTE_WIDTH,
            ),
        )
    )
    written = figures.save(figures.figure1(points, published.METHODS, note), output, "figure1")
    figure = {
        "points": [asdict(point) for point in points],
        "means_of": list(shown),
        "by_data_set": {
            name: {setting: asdict(value) for setting, value in found.items()}
            for name, found in measured.items()
        },
        "published": {
            name: {"fps": method.fps, "image_auroc": method.average.image}
            for name, method in published.METHODS.items()
        },
        "engine": engine,
        **here,
    }
    path = output / "figure1.json"
    with replaced_when_complete(path) as file:
        file.write((json.dumps(figure, indent=2) + "\n").encode())
    return [*written, path]


def _settings(config: Config, runtime: Runtime) -> dict[str, Config]:
    """Detectors of figure 1 by what they are called in it."""
    given = config.model_copy(update={"precision": "fp32"})
    chosen = {preset: Config.create(preset) for preset in ("fast", "accurate")}
    if given not in chosen.values():
        chosen[f"{config.encoder}, {config.input_size} px"] = given
    precisions = ("fp32", "int8") if engine_name(runtime) == "openvino" else ("fp32",)
    return {
        f"{name}, {precision}": setting.model_copy(update={"precision": precision})
        for name, setting in chosen.items()
        for precision in precisions
    }


def _find_data_sets(root: Path) -> dict[str, tuple[Path, str | None]]:
    """Roots and categories by name: those of the tables, else a data set in any other layout."""
    from fapm.reproduce.data_sets import find_data_sets

    names = categories(root) if is_directory(root) else []
    try:
        return {name: (folder, None) for name, folder in find_data_sets(root).items()}
    except DatasetError:
        return {name: (root, name) for name in names} or {root.resolve().stem: (root, None)}


def _refuse_missing_libraries() -> None:
    for name in ("matplotlib", "sklearn", "timm"):
        if find_spec(name) is None:
            raise EngineError(
                f"figures: {name} is not installed; type: pip install 'fapm[research]'"
            )
