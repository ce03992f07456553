"""Find the data sets below a root, and measure a detector on one of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.datasets.loading import Dataset, load_dataset
from fapm.detector import Detector
from fapm.engines.opening import open_encoder
from fapm.errors import DatasetError
from fapm.frames.preparation import readable_frames
from fapm.measure.timing import Stage
from fapm.pictures.sources import Picture
from fapm.system.paths import is_directory

# Number of frames on which speed is measured, in turn.
_FRAMES = 4

_PAPERS_ENCODER = "wide_resnet50_2"


def find_data_sets(root: Path) -> dict[str, Path]:
    """Folders in MVTec AD's layout by their names: ``root`` itself, or up to two folders below it.

    Raises
    ------
    DatasetError
        The folder does not exist, no folder has ``train/good``, or two have the same name.
    """
    if not is_directory(root):
        raise DatasetError(f"{root}: no such folder; check the path")
    if is_directory(root / "train" / "good"):
        return {root.resolve().name: root}
    found: dict[str, Path] = {}
    for good in sorted([*root.glob("*/train/good"), *root.glob("*/*/train/good")]):
        folder = good.parents[1]
        if folder.name in found:
            raise DatasetError(
                f"{root}: {folder.name} is there twice, {found[folder.name]} and {folder}; name "
                "the folder above one of them"
            )
        found[folder.name] = folder
    if not found:
        raise DatasetError(
            f"{root}: no data set in MVTec AD's layout; each is a folder with train/good, test and "
            "ground_truth, up to two folders below"
        )
    return found


def load_labelled(folder: Path) -> Dataset:
    """Load a data set that has pictures to judge.

    Raises
    ------
    DatasetError
        It lacks good or defective test pictures; also as
        :func:`fapm.datasets.loading.load_dataset`.
    """
    data = load_dataset(folder, "mvtec")
    defects = sum(sample.label == 1 for sample in data.test)
    if not 0 < defects < len(data.test):
        raise DatasetError(
            f"{folder}: test has {len(data.test) - defects} good and {defects} defective pictures; "
            "both are needed"
        )
    return data


def scale_warning(config: Config) -> list[str]:
    """A warning if image scores depend on the magnitude of an encoder's features, or none."""
    own_scale = config.distance_unit == "one" and config.neighbours > 1
    if not own_scale or config.encoder.startswith(_PAPERS_ENCODER):
        return []
    return [
        f"The unit 1 and b = {config.neighbours} are the paper's, for {_PAPERS_ENCODER}. Other "
        "encoders' distances are of another size, which saturates the softmax in the image score: "
        "for those use --neighbours 1, or --distance-unit median-radius."
    ]


def speed_stages(detector: Detector, files: Sequence[Path]) -> dict[str, Stage]:
    """Timed stages of a detector, in the two meanings that FPS has in the authors' code.

    ``device`` is the time of a frame in the graph, from encoder to image score. It includes the
    map, which is part of our graph; the authors do not time it. ``wall`` is the time from a file,
    which is decoded and resized, to the score and the smoothed map.
    """
    chosen, frames = _readable(detector, files)
    frame, file = cycle(frames), cycle(chosen)
    return {
        "device": Stage(lambda: detector.engine_.run([next(frame)])),
        "wall": Stage(lambda: detector.predict(next(file))),
    }


def encoder_stage(detector: Detector, files: Sequence[Path]) -> Stage:
    """Timed stage of a frame in the encoder alone."""
    frame = cycle(_readable(detector, files)[1])
    encoder = open_encoder(detector.fitted_.encoder, detector.runtime)
    return Stage(lambda: encoder.features([next(frame)]))


def _readable(
    detector: Detector, files: Sequence[Path]
) -> tuple[list[Picture], list[NDArray[np.uint8]]]:
    return readable_frames(
        files,
        detector.fitted_.preparation,
        count=_FRAMES,
        max_pixels=detector.max_pixels,
    )
