"""What fewer channels would cost: keys and queries projected onto C / 2 and C / 4 dimensions.

    python benchmarks/reduction.py [DATA_ROOT] [--only NAME ...]

PCA keeps the directions in which the normal vectors of a layer vary most; the random projection is
orthonormal. Both are applied to what is memorised and compared, behind the pooling. A row is a fit
and its accuracy; the size is that of the keys in float32. DATA_ROOT holds data sets in any layout
that ``fapm evaluate`` reads (default: ../shared/data).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fapm.config import Config
from fapm.datasets.loading import Sample, load_dataset
from fapm.encoder.freeze import freeze
from fapm.encoder.weights import create_encoder
from fapm.engines.base import EncoderRunner, Runtime
from fapm.engines.opening import open_encoder
from fapm.frames.layout import layout_of
from fapm.frames.preparation import Frame, Preparation
from fapm.graph.reference import Search, aggregate
from fapm.measure.metrics import auroc
from fapm.pictures import codec
from fapm.pictures.masks import read_masks
from paper_choices import memorise

DATA_SETS = ("mvtec/bottle", "mvtec/transistor", "magnetic_tile", "screw")
SAMPLE = 20_000  # vectors that a PCA is made from


def features(samples: list[Sample], config: Config, runner: EncoderRunner) -> list[Tensor]:
    """Per layer float32 ``[N, C, H, W]``, pooled."""
    each = []
    for sample in samples:
        frame = Preparation(layout_of(config), "bicubic").read(
            sample.path, max_pixels=codec.MAX_PIXELS
        )
        assert isinstance(frame, Frame)
        maps = runner.features([frame.pixels])
        each.append(aggregate([torch.from_numpy(f) for f in maps], config))
    return [torch.cat(layer) for layer in zip(*each, strict=True)]


def projections(normal: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Orthonormal matrices ``[c, C]`` for one layer's normal features ``[N, C, H, W]``."""
    channels = normal.shape[1]
    yield "none", torch.eye(channels)
    vectors = normal.permute(0, 2, 3, 1).reshape(-1, channels)
    chosen = np.random.default_rng(0).permutation(len(vectors))[:SAMPLE]
    sample = vectors[torch.from_numpy(chosen)].double()
    _, _, directions = torch.linalg.svd(sample - sample.mean(dim=0), full_matrices=False)
    noise = torch.randn(channels, channels, generator=torch.Generator().manual_seed(0))
    random = torch.linalg.qr(noise).Q.T
    for share in (2, 4):
        yield f"PCA, C / {share}", directions[: channels // share].float()
        yield f"random, C / {share}", random[: channels // share]


def row(
    train: list[Tensor], test: list[Tensor], samples: list[Sample], config: Config
) -> tuple[float, float | None, float]:
    """Image AUROC, pixel AUROC (None without masks) and megabytes of keys."""
    banks = memorise(train, config)
    search = Search(config, banks)
    scored = [search([f[i : i + 1] for f in test]) for i in range(len(samples))]
    labels = [sample.label for sample in samples]
    image = auroc(labels, [float(s.scores[0]) for s in scored])
    pixel = None
    if any(sample.masks for sample in samples):
        maps = np.concatenate([s.maps.numpy() for s in scored])
        masks = np.zeros(maps.shape, np.bool_)
        for mask, sample in zip(masks, samples, strict=True):
            if sample.masks:
                height, width = codec.read_image(sample.path).shape[:2]
                read = read_masks(sample.masks, height, width).inside
                mask[:] = layout_of(config).mask(read)
        pixel = auroc(masks, maps)
    return image, pixel, sum(bank.keys.nbytes for bank in banks) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--only", nargs="+", default=DATA_SETS)
    arguments = parser.parse_args()
    config = Config.create()
    runner = open_encoder(freeze(create_encoder(config), "fp32"), Runtime())
    print("| data set | projection | image AUROC | pixel AUROC | keys MB |")
    print("|---|---|---|---|---|")
    for name in arguments.only:
        data = load_dataset(arguments.root / name)
        samples = list(data.test)
        train = features([s for s in data.train if s.label != 1], config, runner)
        test = features(samples, config, runner)
        for choices in zip(*map(projections, train), strict=True):
            matrices = [matrix for _, matrix in choices]
            reduced = [
                [torch.einsum("nchw,dc->ndhw", f, m) for f, m in zip(layers, matrices, strict=True)]
                for layers in (train, test)
            ]
            with torch.inference_mode():
                image, pixel, size = row(*reduced, samples, config)
            shown = "-" if pixel is None else f"{100 * pixel:.2f}"
            print(f"| {name} | {choices[0][0]} | {100 * image:.2f} | {shown} | {size:.1f} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
