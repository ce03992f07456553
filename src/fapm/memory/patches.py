"""Turn feature maps into the vectors that are memorised and compared (paper, section 2.1)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fapm.memory import geometry


def aggregate(features: Tensor) -> Tensor:
    """Make each cell aware of its 3 x 3 neighbourhood by average pooling.

    The paper calls the vectors "locally aware". The authors' code pools each feature map with
    stride 1 and padding 1 and counts the zeros of the padding. This function does the same.

    Parameters
    ----------
    features
        float ``[B, C, H, W]``.

    Returns
    -------
    float ``[B, C, H, W]``
    """
    return F.avg_pool2d(features, kernel_size=3, stride=1, padding=1)


def concatenate_layers(features: list[Tensor]) -> Tensor:
    """Upsample coarser maps to the finest and concatenate channels, as PatchCore does.

    The paper's layer-wise memory avoids this. It serves the ablation (Table 2, A and B).

    Parameters
    ----------
    features
        per layer float ``[B, C_l, H_l, W_l]``.

    Returns
    -------
    float ``[B, sum(C_l), H, W]`` with ``H, W`` of the finest layer.
    """
    finest = geometry.finest((f.shape[2], f.shape[3]) for f in features)
    return torch.cat(
        [
            f if f.shape[-2:] == finest else F.interpolate(f, size=finest, mode="nearest")
            for f in features
        ],
        dim=1,
    )


def side_by_side(features: Tensor, tiling: tuple[int, int]) -> Tensor:
    """Join the maps of a frame's tiles to one map.

    Parameters
    ----------
    features
        float ``[B * R * C, D, H, W]``, frame after frame, each with its tiles row by row.
    tiling
        ``R, C``.

    Returns
    -------
    float ``[B, D, R * H, C * W]``
    """
    rows, columns = tiling
    if rows * columns == 1:
        return features
    _, channels, height, width = features.shape
    tiles = features.view(-1, rows, columns, channels, height, width)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, rows * height, columns * width)


def patch_vectors(features: Tensor, patch: NDArray[np.int64]) -> Tensor:
    """Vectors of one patch, float ``[N * V, C]``, picture after picture.

    Parameters
    ----------
    features
        float ``[N, C, H, W]``; fastest in ``torch.channels_last``.
    patch
        its cells ``y * W + x``, int64 ``[V]``.
    """
    rows, columns = map(torch.from_numpy, np.divmod(patch, features.shape[-1]))
    return features.permute(0, 2, 3, 1)[:, rows, columns].flatten(0, 1)
