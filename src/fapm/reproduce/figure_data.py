"""Data of the paper's figures, measured on the user's own data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm.config import Config
from fapm.datasets.loading import Dataset, Sample
from fapm.detector import Detector
from fapm.encoder.freeze import freeze
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder
from fapm.errors import DatasetError, ImageError
from fapm.frames.layout import layout_of
from fapm.frames.preparation import Frame, Preparation
from fapm.measure.evaluate import evaluate
from fapm.measure.timing import take_turns
from fapm.memory.coreset import GreedyCoreset
from fapm.memory.geometry import patch_grid
from fapm.memory.patches import aggregate
from fapm.memory.search import pairwise_squared
from fapm.pictures import codec
from fapm.pictures.masks import read_masks
from fapm.progress import Progress
from fapm.reports.heatmap import overlay, thumbnails
from fapm.reproduce.data_sets import speed_stages
from fapm.system.parallel import ordered_map
from fapm.training.spool import Spool

# Fig. 1: turns of each meaning of FPS, of four frames.
_ROUNDS = 10

# Fig. 3: the paper's K, and the largest number of vectors laid out (t-SNE of all takes a minute).
KEYS = 10
_LAID_OUT = 1000

# Fig. 4: least number of defects, if there are as many, and edge of the pictures.
_DEFECTS = 4
_EDGE = 384


@dataclass(frozen=True)
class Measured:
    """A detector on one data set: image AUROC in percent, and milliseconds a frame.

    ``device_ms`` is the time of the graph alone, ``wall_ms`` that from file to verdict and map.
    """

    image_auroc: float
    device_ms: float
    wall_ms: float


@dataclass(frozen=True)
class Point:
    """A detector in Fig. 1: frames a second, one at a time, and image AUROC in percent."""

    name: str
    fps_device: float
    fps_wall: float
    image_auroc: float


@dataclass(frozen=True)
class Cluster:
    """The memory of one patch in Fig. 3.

    Attributes
    ----------
    row, column
        position of the patch.
    places
        vectors laid out in the plane by t-SNE, float32 ``[n, 2]``.
    distances
        distance of each vector to its nearest key, float32 ``[n]``.
    nearest
        number of the vector that is this key, int64 ``[n]``.
    keys
        numbers of the vectors that are keys, int64 ``[K]``.
    radius
        covering radius of the keys, over all vectors of the patch.
    """

    row: int
    column: int
    places: NDArray[np.float32]
    distances: NDArray[np.float32]
    nearest: NDArray[np.int64]
    keys: NDArray[np.int64]
    radius: float


@dataclass(frozen=True)
class Clusters:
    """Data of Fig. 3.

    Attributes
    ----------
    near, far, again
        a near patch and a far one with ``K`` keys, and the far one with ``2K``.
    radii
        covering radii of all patches with ``K`` keys, float64 ``[rows, columns]``.
    layer
        name of their layer.
    pictures
        number of good pictures in the memory.
    """

    near: Cluster
    far: Cluster
    again: Cluster
    radii: NDArray[np.float64]
    layer: str
    pictures: int


@dataclass(frozen=True)
class Example:
    """A column of Fig. 4.

    Attributes
    ----------
    picture, heatmap
        uint8 ``[h, w, 3]``.
    mask
        bool ``[h, w]``; None if there is none.
    score
        score divided by the threshold; NaN without a threshold.
    """

    kind: str
    picture: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    heatmap: NDArray[np.uint8]
    score: float
    verdict: str


def measure(
    data: Dataset,
    settings: Mapping[str, Config],
    runtime: Runtime,
    *,
    max_pixels: int = codec.MAX_PIXELS,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Measured]:
    """Measure accuracy and, in turns, speed of detectors; both by their names (Fig. 1).

    Raises
    ------
    DatasetError
        The test pictures do not include both good ones and defects.
    FapmError
        As :meth:`fapm.Detector.fit`.
    """
    good = data.good
    detectors: dict[str, Detector] = {}
    aurocs: dict[str, float] = {}
    for number, (name, config) in enumerate(settings.items()):
        progress("measure", number, len(settings))
        detectors[name] = Detector(config, runtime=runtime, max_pixels=max_pixels).fit(good)
        found = evaluate(detectors[name], data.test)
        if found.image is None:
            raise DatasetError(f"{data.name}: its test pictures are not both good and defective")
        aurocs[name] = 100 * found.image.auroc
    stages = {name: speed_stages(detector, good) for name, detector in detectors.items()}
    take_turns([stage for pair in stages.values() for stage in pair.values()], _ROUNDS)
    progress("measure", len(settings), len(settings))
    return {
        name: Measured(aurocs[name], pair["device"].median, pair["wall"].median)
        for name, pair in stages.items()
    }


def points(measured: Sequence[Mapping[str, Measured]]) -> list[Point]:
    """Average over data sets on each of which the same detectors were measured."""
    return [
        Point(
            name,
            1000 / fmean(found[name].device_ms for found in measured),
            1000 / fmean(found[name].wall_ms for found in measured),
            fmean(found[name].image_auroc for found in measured),
        )
        for name in measured[0]
    ]


def clusters(
    data: Dataset,
    config: Config,
    runtime: Runtime,
    *,
    max_pixels: int = codec.MAX_PIXELS,
    progress: Progress = lambda stage, done, total: None,
) -> Clusters:
    """Lay out the memories of two patches of the shallowest layer by t-SNE (Fig. 3).

    The far patch has the largest covering radius at ``K`` keys, and the radius of the near patch is
    the lower quartile. The settings of frames, encoder and grid are used; ``K`` is :data:`KEYS`, as
    in the paper's figure.

    Raises
    ------
    ImageError
        No picture could be read.
    FapmError
        As :meth:`fapm.Detector.fit`.
    """
    encoder = create_encoder(config)
    runner = open_encoder(freeze(encoder, "fp32"), runtime)
    good = data.good
    preparation = Preparation(layout_of(config), encoder.spec.interpolation)
    read = partial(preparation.read, max_pixels=max_pixels)
    with Spool(len(good), config.grid) as spool, torch.inference_mode():
        for number, frame in enumerate(ordered_map(read, good)):
            progress("encode", number + 1, len(good))
            if isinstance(frame, Frame):
                features = [torch.from_numpy(f) for f in runner.features([frame.pixels])]
                spool.append([aggregate(f) for f in features])
        if not spool.count:
            raise ImageError(f"{data.name}: none of its good pictures could be read")
        _, height, width = spool.shapes[0]
        rows, columns = patch_grid(height, width, config.grid)
        coresets = [
            GreedyCoreset(partial(spool.patch_vectors, 0, patch)) for patch in range(rows * columns)
        ]
        for coreset in coresets:
            coreset.extend(KEYS)
        radii = np.array([coreset.radius for coreset in coresets])
        order = radii.argsort(kind="stable")
        near, far = int(order[len(order) // 4]), int(order[-1])

        def shown(number: int, patch: int, count: int) -> Cluster:
            progress("t-SNE", number, 3)
            coresets[patch].extend(count)
            keys = coresets[patch].indices[:count]
            radius = coresets[patch].radii[len(keys) - 1]
            vectors = spool.patch_vectors(0, patch)
            return _cluster(divmod(patch, columns), vectors, keys, radius, config.seed)

        found = Clusters(
            near=shown(0, near, KEYS),
            far=shown(1, far, KEYS),
            again=shown(2, far, 2 * KEYS),
            radii=radii.reshape(rows, columns),
            layer=encoder.spec.layers[0],
            pictures=spool.count,
        )
        progress("t-SNE", 3, 3)
    return found


def examples(detector: Detector, data: Dataset) -> list[Example]:
    """Choose a good test picture, and the first picture by name of every kind of defect (Fig. 4).

    If there are few kinds, several of each are chosen, up to :data:`_DEFECTS` in all. Unreadable
    pictures are skipped.

    Raises
    ------
    DatasetError
        No test picture could be inspected.
    """
    kinds = sorted({sample.kind for sample in data.test if sample.label != 0})
    good = [sample for sample in data.test if sample.label == 0]
    wanted = [(good, 1)]
    for kind in kinds:
        of_kind = [sample for sample in data.test if sample.label != 0 and sample.kind == kind]
        wanted.append((of_kind, max(1, _DEFECTS // len(kinds))))
    found = [
        example
        for samples, count in wanted
        for example in islice(filter(None, (_example(detector, s) for s in samples)), count)
    ]
    if not found:
        raise DatasetError(f"{data.name}: no test picture that can be shown")
    return found


def _cluster(
    place: tuple[int, int], vectors: Tensor, keys: list[int], radius: float, seed: int
) -> Cluster:
    """Lay out the memory of a patch: all keys, and an even sample of its vectors if many."""
    from sklearn.manifold import TSNE

    step = -(-len(vectors) // _LAID_OUT)
    chosen = np.union1d(np.arange(0, len(vectors), step), keys)
    vectors = vectors[torch.from_numpy(chosen)]
    rows = np.searchsorted(chosen, keys)
    squared, nearest = pairwise_squared(vectors, vectors[torch.from_numpy(rows)]).min(dim=1)
    layout = TSNE(
        perplexity=min(30.0, (len(chosen) - 1) / 3),
        init="pca",
        random_state=seed,
        n_jobs=1,  # sums of several threads differ from run to run
    )
    return Cluster(
        row=place[0],
        column=place[1],
        places=layout.fit_transform(vectors.numpy()),
        distances=squared.sqrt().numpy(),
        nearest=rows[nearest.numpy()],
        keys=rows,
        radius=radius,
    )


def _example(detector: Detector, sample: Sample) -> Example | None:
    """Make an example; None if the picture, or its mask, cannot be read."""
    try:
        prediction = detector.predict(sample.path)
        whole = codec.read_image(sample.path, detector.max_pixels)
        height, width = whole.shape[:2]
        mask = read_masks(sample.masks, height, width).inside if sample.masks else None
    except ImageError:
        return None
    picture, anomaly_map, mask = thumbnails(whole, prediction.anomaly_map, mask, _EDGE)
    return Example(
        kind=sample.kind,
        picture=picture,
        mask=mask,
        heatmap=overlay(picture, anomaly_map, prediction.map_threshold),
        score=prediction.score / prediction.threshold,
        verdict=prediction.verdict,
    )
