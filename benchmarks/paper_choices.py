"""Where the paper is silent or its authors' code differs: what each choice changes.

    python benchmarks/paper_choices.py [DATA_ROOT] [--orders 5] [--only NAME ...]

Rows differ from the preset ``fast`` or ``paper`` in the one thing they name, all with the embedded
encoder. Pictures are encoded once; every row then builds its memory and searches it with the
functions of :mod:`fapm.memory`. Greedy sampling begins with the first training picture, so that a
single fit says little: each figure is the mean over shuffled orders of the training pictures (the
first: as they are), ± its deviation. The second table says how Equation (1) saturates. DATA_ROOT
holds data sets in any layout that ``fapm evaluate`` reads (default: ../shared/data).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm.config import Config
from fapm.datasets.loading import Sample, load_dataset
from fapm.encoder.freeze import freeze
from fapm.encoder.weights import EMBEDDED, create_encoder
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder
from fapm.frames.layout import layout_of
from fapm.frames.preparation import Frame, Preparation
from fapm.graph.reference import Search
from fapm.measure.metrics import auroc
from fapm.memory import patches
from fapm.memory.bank import MemoryBank
from fapm.memory.coreset import distance_score
from fapm.memory.geometry import cells_by_patch
from fapm.pictures import codec
from fapm.pictures.masks import read_masks
from fapm.training.banks import layer_budgets, memorise_layer

DATA_SETS = ("mvtec/bottle", "mvtec/transistor", "screw")
_BATCH = 8


@dataclass(frozen=True)
class Choice:
    """What a row of the table does; the last two have no knob in fapm itself.

    Attributes
    ----------
    pooled
        whether cells are made aware of their 3 x 3 neighbourhood.
    by_layer
        score the worst cell of each layer and add the scores, the other reading of "we unify these
        maximum layer distances".
    """

    config: Config
    pooled: bool = True
    by_layer: bool = False


FAST = Config.create()
# The preset as it is, but for the encoder: the paper's own weights are not always at hand.
PAPER = Config.create("paper", encoder=EMBEDDED)


def _fast(**knobs: Any) -> Choice:
    return Choice(FAST.model_copy(update=knobs))


def _paper(**knobs: Any) -> Choice:
    return Choice(PAPER.model_copy(update=knobs))


CHOICES = {
    "`fast`": Choice(FAST),
    "row order": _fast(coarse_upsampling="row-order"),
    "unit 1": _fast(distance_unit="one"),
    "b = 4": _fast(neighbours=4),
    "b = 4, unit 1": _fast(neighbours=4, distance_unit="one"),
    "worst cell of each layer": Choice(FAST, by_layer=True),
    "plain sampling": _fast(sampling="none"),
    "near-far": _fast(sampling="near-far"),
    "near-far, unit 1": _fast(sampling="near-far", distance_unit="one"),
    "256 -> crop 224": _fast(resize=256, crop=224),
    "no 3 x 3 pooling": Choice(FAST, pooled=False),
    "`paper`": Choice(PAPER),
    "`paper`, row order": _paper(coarse_upsampling="row-order"),
    "`paper`, median unit": _paper(distance_unit="median-radius"),
    "`paper`, b = 1": _paper(neighbours=1),
    "`paper`, worst cell of each layer": Choice(PAPER, by_layer=True),
    "`paper`, no 3 x 3 pooling": Choice(PAPER, pooled=False),
}


@dataclass(frozen=True)
class Encoded:
    """Feature maps per layer ``[N, C, H, W]``, as the encoder gives them, and the defects."""

    train: list[Tensor]
    test: list[Tensor]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_] | None  # [N, S, S]


@dataclass
class Figures:
    """What one fit gave, in percent; ``pixel`` is NaN without masks."""

    image: float
    pixel: float
    keys: int


def encode(root: Path, config: Config) -> Encoded:
    """Everything of a data set, in the frames of ``config``."""
    data = load_dataset(root)
    encoder = create_encoder(config)
    runner = open_encoder(freeze(encoder, "fp32"), Runtime())

    def features(samples: Sequence[Sample]) -> list[Tensor]:
        layers: list[list[NDArray[np.float32]]] = [[] for _ in encoder.spec.layers]
        for sample in samples:
            frame = Preparation(layout_of(config), encoder.spec.interpolation).read(
                sample.path, max_pixels=codec.MAX_PIXELS
            )
            assert isinstance(frame, Frame), frame
            for layer, found in zip(layers, runner.features([frame.pixels]), strict=True):
                layer.append(found)
        return [torch.from_numpy(np.concatenate(layer)) for layer in layers]

    return Encoded(
        features([s for s in data.train if s.label != 1]),
        features(data.test),
        np.array([s.label for s in data.test]),
        _masks(data.test, config),
    )


def _masks(samples: Sequence[Sample], config: Config) -> NDArray[np.bool_] | None:
    if not any(s.masks for s in samples):
        return None
    edge = config.input_size
    masks = np.zeros((len(samples), edge, edge), np.bool_)
    for number, sample in enumerate(samples):
        if sample.masks:
            height, width = codec.read_image(sample.path).shape[:2]
            mask = read_masks(sample.masks, height, width).inside
            masks[number] = layout_of(config).mask(mask)
    return masks


def memorise(features: Sequence[Tensor], config: Config) -> list[MemoryBank]:
    """What ``fapm.fit`` memorises of features ``[N, C, H, W]``, a bank for each layer."""
    sizes = [(layer.shape[2], layer.shape[3]) for layer in features]
    planned = layer_budgets(config, sizes, len(features[0]))
    banks = []
    for layer, budget, size in zip(features, planned, sizes, strict=True):
        cells = cells_by_patch(*size, config.grid)
        fast = layer.contiguous(memory_format=torch.channels_last)
        vectors = partial(lambda f, own, p: patches.patch_vectors(f, own[p]), fast, cells)
        banks.append(memorise_layer(vectors, budget, size, config))
    return banks


def judge(
    choice: Choice, banks: Sequence[MemoryBank], encoded: Encoded, test: Sequence[Tensor]
) -> Figures:
    """Search the banks for the test pictures' ``test``, pooled or not."""
    whole = Search(choice.config, banks)
    layers = [Search(choice.config, [bank]) for bank in banks]
    scores, maps = [], []
    for start in range(0, len(encoded.labels), _BATCH):
        batch = [layer[start : start + _BATCH] for layer in test]
        scored = whole(batch)
        if choice.by_layer:
            alone = [s([f]).scores for s, f in zip(layers, batch, strict=True)]
            scores.append(torch.stack(alone).sum(dim=0))
        else:
            scores.append(scored.scores)
        maps.append(scored.maps)
    pixel = np.nan
    if encoded.masks is not None:
        pixel = auroc(encoded.masks.ravel(), torch.cat(maps).numpy().ravel())
    keys = sum(len(bank.keys) for bank in banks)
    return Figures(100 * auroc(encoded.labels, torch.cat(scores).numpy()), 100 * pixel, keys)


def orders(count: int, pictures: int) -> Iterator[NDArray[np.int64]]:
    yield np.arange(pictures)
    for seed in range(1, count):
        yield np.random.default_rng(seed).permutation(pictures)


def spread(values: Sequence[float]) -> str:
    if np.isnan(values).any():
        return "-"
    return f"{np.mean(values):.2f} ± {np.std(values):.2f}"


def saturation(name: str, layers: list[Tensor], config: Config) -> Iterator[str]:
    """Rows of the second table: radii at the base ratio and what Equation (1) makes of them."""
    plain = config.model_copy(update={"sampling": "none", "distance_unit": "median-radius"})
    for number, bank in enumerate(memorise(layers, plain)):
        radii = bank.radii.astype(float)

        def far(unit: float, radii: NDArray[np.float64] = radii) -> str:
            count = sum(distance_score(r / unit) > config.far_threshold for r in radii.tolist())
            return f"{count}/{len(radii)}"

        low, middle, high = np.quantile(radii, (0, 0.5, 1))
        yield (
            f"| {name} | {number + 1} | {low:.2f} | {middle:.2f} | {high:.2f} "
            f"| {distance_score(low):.3f} | {far(1.0)} | {far(bank.unit)} |"
        )


def _edges(config: Config) -> tuple[int, int | None]:
    return config.resize, config.crop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=DATA_SETS)
    arguments = parser.parse_args()
    print(f"{date.today()}, orders: {arguments.orders}\n")
    print("| data set | choice | image AUROC | pixel AUROC | keys |")
    print("|---|---|---|---|---|")
    saturated: list[str] = []
    for name in arguments.only:
        frames = {
            edges: encode(arguments.root / name, config)
            for edges, config in {_edges(c.config): c.config for c in CHOICES.values()}.items()
        }
        for title, choice in CHOICES.items():
            encoded = frames[_edges(choice.config)]
            train, test = encoded.train, encoded.test
            if choice.pooled:
                train, test = [[patches.aggregate(f) for f in fs] for fs in (train, test)]
            found = [
                judge(choice, memorise([f[rows] for f in train], choice.config), encoded, test)
                for rows in orders(arguments.orders, len(train[0]))
            ]
            print(
                f"| {name} | {title} | {spread([f.image for f in found])} "
                f"| {spread([f.pixel for f in found])} | {found[0].keys:,} |",
                flush=True,
            )
        pooled = [patches.aggregate(f) for f in frames[_edges(FAST)].train]
        saturated += saturation(name, pooled, FAST)
    print("\n| data set | layer | smallest radius | median | largest | smallest score (1) "
          "| far, unit 1 | far, median unit |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(saturated))


if __name__ == "__main__":
    main()
