"""FAPM in plain NumPy and float64: what the tests hold the product against.

Written from the paper (arXiv 2211.07381, section 2) and the project's written rules where the paper
is silent, not from the code under test: one loop per sentence, every distance the norm of a
difference, nothing centred, batched or kept between calls. Slow on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIN_KEYS = 4
MAX_SHARE = 0.4


# Section 2.1: cells and patches


def average_pool(features: Floats) -> Floats:
    """3 x 3 mean of ``[B, C, H, W]``; beyond the border are zeros, and they count."""
    height, width = features.shape[2:]
    padded = np.pad(features, ((0, 0), (0, 0), (1, 1), (1, 1)))
    shifts = [(dy, dx) for dy in range(3) for dx in range(3)]
    return sum(padded[:, :, dy : dy + height, dx : dx + width] for dy, dx in shifts) / 9


def patch_numbers(height: int, width: int, grid: int | tuple[int, int]) -> Integers:
    """Patch of each cell ``[H, W]``: row ``floor(y G / H)``, column ``floor(x G / W)``.

    An axis with fewer cells than ``G`` has one patch per cell. ``grid`` may be a ``G`` for each.
    """
    wanted = (grid, grid) if isinstance(grid, int) else grid
    rows, columns = min(wanted[0], height), min(wanted[1], width)
    numbers = np.empty((height, width), np.int64)
    for y in range(height):
        for x in range(width):
            row, column = math.floor(Fraction(y * rows, height)), Fraction(x * columns, width)
            numbers[y, x] = row * columns + math.floor(column)
    return numbers


def inspected_cells(
    roi: NDArray[np.bool_], sizes: Sequence[tuple[int, int]], upsampling: str = "nearest"
) -> list[NDArray[np.bool_]]:
    """Per layer ``[H, W]``: the finest map's cells with half their square inside ``[S, S]``, and
    the coarser ones' that those take their distance from.
    """
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    share = np.empty((height, width))
    # Each pixel as many pieces as make whole cells, so that no cell cuts a piece.
    pieces = roi.repeat(height, axis=0).repeat(width, axis=1)
    edge = len(roi)
    for y in range(height):
        for x in range(width):
            share[y, x] = pieces[y * edge : (y + 1) * edge, x * edge : (x + 1) * edge].mean()
    fine = share >= 0.5
    onto = nearest_upsampling if upsampling == "nearest" else row_order_upsampling
    layers = []
    for rows, columns in sizes:
        shown = onto(np.arange(rows * columns).reshape(rows, columns), height, width)
        layers.append(np.isin(np.arange(rows * columns), shown[fine]).reshape(rows, columns))
    return layers


def concatenate(layers: Sequence[Floats]) -> Floats:
    """Layer-wise memory off: coarser maps repeated onto the finest, channels side by side."""
    height, width = max((f.shape[2:] for f in layers), key=lambda size: size[0] * size[1])
    return np.concatenate([nearest_upsampling(f, height, width) for f in layers], axis=1)


# Section 2.2: coreset sampling


def greedy(vectors: Floats, count: int) -> tuple[list[int], list[float]]:
    """k-center: vector 0, then always the vector farthest from its nearest key, lowest index first.

    Ends when ``count`` are chosen or no vector is away from a key. Returns the choice, and the
    covering radius after each.
    """
    nearest = np.full(len(vectors), np.inf)
    chosen: list[int] = []
    radii: list[float] = []
    following = 0
    while len(chosen) < count and (not radii or radii[-1] > 0):
        chosen.append(following)
        nearest = np.minimum(nearest, np.linalg.norm(vectors - vectors[following], axis=1))
        following = int(np.argmax(nearest))
        radii.append(float(nearest[following]))
    return chosen, radii


def share(ratio: float, vectors: int) -> int:
    """``ceil(ratio * vectors)`` of the ratio as it is written in decimals."""
    return math.ceil(Fraction(str(ratio)) * vectors)


def distance_score(radius: float) -> float:
    """Equation (1)."""
    return 1 - 2 / (1 + math.exp(radius)) if radius < 700 else 1.0


def covering_radius(vectors: Floats, chosen: Sequence[int]) -> float:
    """Largest distance of any vector to its nearest key."""
    keys = vectors[list(chosen)]
    return max(float(np.linalg.norm(keys - vector, axis=1).min()) for vector in vectors)


def median_radius(patches: Sequence[Floats], ratio: float) -> float:
    """Distance unit: the median over the patches at the base ratio; 1 if that is 0."""
    radii = [greedy(vectors, share(ratio, len(vectors)))[1][-1] for vectors in patches]
    return float(np.median(radii)) or 1.0


def plain(patches: Sequence[Floats], ratio: float) -> list[list[int]]:
    return [greedy(vectors, share(ratio, len(vectors)))[0] for vectors in patches]


def near_far(
    patches: Sequence[Floats], ratio: float, unit: float, far_threshold: float
) -> list[list[int]]:
    """The paper's rule: sampled once again, with 2 K, where the distance score is too large."""
    choices = []
    for vectors in patches:
        count = share(ratio, len(vectors))
        chosen, radii = greedy(vectors, count)
        if distance_score(radii[-1] / unit) > far_threshold:
            chosen, _ = greedy(vectors, 2 * count)
        choices.append(chosen)
    return choices


def equal_radius(patches: Sequence[Floats], ratio: float) -> list[list[int]]:
    """Our rule: the keys of plain sampling, one by one to the patch with the largest radius.

    At least 4 keys a patch; at most 40 % of its vectors, or its plain share where that is more.
    """
    budget = sum(len(chosen) for chosen in plain(patches, ratio))
    limits = [max(MIN_KEYS, share(MAX_SHARE, len(v)), share(ratio, len(v))) for v in patches]
    orders = [greedy(vectors, limit) for vectors, limit in zip(patches, limits, strict=True)]
    counts = [min(MIN_KEYS, len(chosen)) for chosen, _ in orders]
    for _ in range(budget - sum(counts)):
        widths = [
            radii[count - 1] if count < len(radii) else 0.0
            for (_, radii), count in zip(orders, counts, strict=True)
        ]
        widest = int(np.argmax(widths))
        if widths[widest] == 0:
            break
        counts[widest] += 1
    return [chosen[:count] for (chosen, _), count in zip(orders, counts, strict=True)]


# Section 2.1 and 2.2 together: the memory of one layer


@dataclass
class Memory:
    """Keys of one layer, patch after patch, and where each came from."""

    numbers: Integers  # [H, W], patch of each cell
    keys: list[Floats]  # per patch [K, C]
    pictures: list[Integers]  # per patch [K]
    cells: list[Integers]  # per patch [K], y * W + x
    radii: list[float]
    unit: float
    rows: int
    columns: int
    inside: NDArray[np.bool_] | None = None  # [H, W], cells that are inspected; None: all


def memorise(
    features: Floats,
    *,
    grid: int | tuple[int, int],
    ratio: float,
    sampling: str,
    distance_unit: str,
    far_threshold: float,
    inside: NDArray[np.bool_] | None = None,
) -> Memory:
    """The memory bank of one layer, from its aggregated normal features ``[N, C, H, W]``.

    Cells that are not ``inside`` do not exist; patches without any have no keys.
    """
    count, channels, height, width = features.shape
    numbers = patch_numbers(height, width, grid)
    per_row = [len(set(line.tolist())) for line in (numbers[:, 0], numbers[0])]
    if inside is None:
        inside = np.ones((height, width), np.bool_)
    everywhere = range(numbers.max() + 1)
    counted = [p for p in everywhere if (inside & (numbers == p)).any()]
    patches, origins = [], []
    for p in counted:
        places = [
            (n, y, x)
            for n in range(count)
            for y in range(height)
            for x in range(width)
            if numbers[y, x] == p and inside[y, x]
        ]
        patches.append(np.stack([features[n, :, y, x] for n, y, x in places]))
        origins.append(np.array([(n, y * width + x) for n, y, x in places]))

    unit = median_radius(patches, ratio) if distance_unit == "median-radius" else 1.0
    if sampling == "near-far":
        chosen = near_far(patches, ratio, unit, far_threshold)
    elif sampling == "equal-radius":
        chosen = equal_radius(patches, ratio)
    else:
        chosen = plain(patches, ratio)
    keys = [np.empty((0, channels)) for _ in everywhere]
    pictures = [np.empty(0, np.int64) for _ in everywhere]
    cells = [np.empty(0, np.int64) for _ in everywhere]
    radii = [0.0 for _ in everywhere]
    for p, vectors, origin, c in zip(counted, patches, origins, chosen, strict=True):
        keys[p], pictures[p], cells[p] = vectors[c], origin[c, 0], origin[c, 1]
        radii[p] = covering_radius(vectors, c)
    return Memory(
        numbers=numbers,
        keys=keys,
        pictures=pictures,
        cells=cells,
        radii=radii,
        unit=unit,
        rows=per_row[0],
        columns=per_row[1],
        inside=inside,
    )


def of_bank(bank: Any, inside: NDArray[np.bool_]) -> Memory:
    """A bank's keys as they are, looked at from the cells that are ``inside``."""
    patches = list(zip(bank.offsets[:-1], bank.offsets[1:], strict=True))
    return Memory(
        numbers=patch_numbers(bank.height, bank.width, bank.grid),
        keys=[bank.keys[a:b].astype(np.float64) for a, b in patches],
        pictures=[bank.pictures[a:b] for a, b in patches],
        cells=[bank.cells[a:b] for a, b in patches],
        radii=bank.radii.tolist(),
        unit=bank.unit,
        rows=min(bank.grid, bank.height),
        columns=min(bank.grid, bank.width),
        inside=inside,
    )


# Section 2.3: detection


def searched_patches(memory: Memory, patch: int, radius: int) -> list[int]:
    """The patch itself and all whose row and column are at most ``radius`` away."""
    row, column = divmod(patch, memory.columns)
    return [
        r * memory.columns + c
        for r in range(memory.rows)
        for c in range(memory.columns)
        if abs(r - row) <= radius and abs(c - column) <= radius
    ]


def nearest_distances(
    features: Floats,
    memory: Memory,
    *,
    count: int,
    radius: int = 0,
    without_pictures: Sequence[int] | None = None,
) -> tuple[Floats, Integers]:
    """Per cell the ``count`` smallest distances in units, and rows of all keys in one list.

    ``[B, H * W, b]`` each; infinite where there are fewer keys, or the cell is not inspected.
    """
    batch, _, height, width = features.shape
    starts = np.cumsum([0, *map(len, memory.keys)])
    distances = np.full((batch, height * width, count), np.inf)
    rows = np.zeros((batch, height * width, count), np.int64)
    for n in range(batch):
        for y in range(height):
            for x in range(width):
                found = []
                if memory.inside is not None and not memory.inside[y, x]:
                    continue
                for p in searched_patches(memory, memory.numbers[y, x], radius):
                    for k, key in enumerate(memory.keys[p]):
                        if without_pictures is None or memory.pictures[p][k] != without_pictures[n]:
                            distance = np.linalg.norm(features[n, :, y, x] - key) / memory.unit
                            found.append((float(distance), int(starts[p]) + k))
                for rank, (distance, row) in enumerate(sorted(found)[:count]):
                    distances[n, y * width + x, rank] = distance
                    rows[n, y * width + x, rank] = row
    return distances, rows


def fill_ranks(distances: Floats) -> Floats:
    """A rank without a key repeats the one before it; a cell without any key is at 0."""
    filled = distances.copy()
    for rank in range(filled.shape[-1]):
        before = filled[..., rank - 1] if rank else np.zeros(filled.shape[:-1])
        filled[..., rank] = np.where(np.isinf(filled[..., rank]), before, filled[..., rank])
    return filled


def nearest_upsampling(maps: Floats, height: int, width: int) -> Floats:
    """``[..., h, w]`` onto ``[..., H, W]``: cell ``(y, x)`` takes ``(y h // H, x w // W)``."""
    rows = [y * maps.shape[-2] // height for y in range(height)]
    columns = [x * maps.shape[-1] // width for x in range(width)]
    return maps[..., rows, :][..., columns]


def row_order_upsampling(maps: Floats, height: int, width: int) -> Floats:
    """The authors' code: each coarse cell is repeated in row order, ``0000 1111 2222 3333``."""
    flat = maps.reshape(*maps.shape[:-2], -1)
    repeated = np.repeat(flat, height * width // flat.shape[-1], axis=-1)
    return repeated.reshape(*maps.shape[:-2], height, width)


def unify(layers: Sequence[Floats], upsampling: str = "nearest") -> Floats:
    """Sum over the layers of ``[B, h, w, b]`` on the finest grid, rank by rank."""
    height, width = max((d.shape[1:3] for d in layers), key=lambda size: size[0] * size[1])
    onto = nearest_upsampling if upsampling == "nearest" else row_order_upsampling
    total = np.zeros((len(layers[0]), height, width, layers[0].shape[-1]))
    for distances in layers:
        ranks_first = np.moveaxis(fill_ranks(distances), -1, 1)
        total += np.moveaxis(onto(ranks_first, height, width), 1, -1)
    return total


def softmax(values: Floats) -> Floats:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def image_score(
    unified: Floats, sigma: float = 0, inside: NDArray[np.bool_] | None = None
) -> tuple[float, int]:
    """``(1 - max softmax(N_b)) * N_b[0]`` at the worst cell of ``[H, W, b]``, and that cell.

    Ours with ``sigma``: the nearest distances are smoothed first, by a Gaussian over the cells;
    with a mask each is the mean of cells inside alone.
    """
    nearest = unified[..., 0]
    seen = np.ones(nearest.shape) if inside is None else inside.reshape(nearest.shape) * 1.0
    levels = nearest
    if sigma:
        share = scipy.ndimage.gaussian_filter(seen, sigma)
        levels = scipy.ndimage.gaussian_filter(nearest * seen, sigma) / np.maximum(share, 1e-12)
    worst = int(np.argmax(np.where(seen > 0, levels, -1)))
    ranks = unified.reshape(-1, unified.shape[-1])[worst]
    weight = 1 - softmax(ranks).max() if len(ranks) > 1 else 1.0
    return float(weight * levels.ravel()[worst]), worst


def bilinear(cells: Floats, size: int | tuple[int, int]) -> Floats:
    """``[H, W]`` to ``size``, pixel centres aligned, edge cells extended."""
    for axis, pixels in enumerate((size, size) if isinstance(size, int) else size):
        count = cells.shape[axis]
        lines = []
        for pixel in range(pixels):
            place = min(max((pixel + 0.5) * count / pixels - 0.5, 0), count - 1)
            low = math.floor(place)
            high = min(low + 1, count - 1)
            part = place - low
            lines.append((1 - part) * cells.take(low, axis) + part * cells.take(high, axis))
        cells = np.stack(lines, axis)
    return cells


def anomaly_map(cells: Floats, size: int | tuple[int, int], sigma: float) -> Floats:
    """Bilinear upsampling, then a Gaussian."""
    upsampled = bilinear(cells, size)
    return scipy.ndimage.gaussian_filter(upsampled, sigma) if sigma else upsampled


def masked_map(
    cells: Floats, inside: NDArray[np.bool_], roi: NDArray[np.bool_], sigma: float
) -> Floats:
    """The mean of inspected cells alone, weighted as in :func:`anomaly_map`; 0 outside.

    A pixel that owes a thousandth or less to inspected cells is 0 too.
    """
    smoothed = anomaly_map(np.where(inside, cells, 0), len(roi), sigma)
    weight = anomaly_map(inside.astype(np.float64), len(roi), sigma)
    known = roi & (weight > 1e-3)
    return np.divide(smoothed, weight, out=np.zeros_like(smoothed), where=known)


@dataclass
class Judged:
    """What becomes of ``B`` pictures."""

    scores: Floats  # [B]
    maps: Floats  # [B, S, S]
    cells: Integers  # [B], worst cell on the finest grid
    unified: Floats  # [B, H, W, b]


def judge(
    layers: Sequence[Floats],
    memories: Sequence[Memory],
    *,
    count: int,
    size: int | tuple[int, int],
    sigma: float,
    score_sigma: float = 0.0,
    radius: int = 0,
    upsampling: str = "nearest",
    without_pictures: Sequence[int] | None = None,
    roi: NDArray[np.bool_] | None = None,
) -> Judged:
    """Scores and maps of pictures from their aggregated features, per layer ``[B, C, H, W]``.

    ``roi [S, S]`` is what of the frames is inspected.
    """
    distances = []
    for features, memory in zip(layers, memories, strict=True):
        found, _ = nearest_distances(
            features, memory, count=count, radius=radius, without_pictures=without_pictures
        )
        distances.append(found.reshape(len(features), *features.shape[2:], count))
    unified = unify(distances, upsampling)
    if roi is None:
        scored = [image_score(one, score_sigma) for one in unified]
        maps = [anomaly_map(one[..., 0], size, sigma) for one in unified]
    else:
        (inside,) = inspected_cells(roi, [unified.shape[1:3]])
        unified = np.where(inside[None, :, :, None], unified, 0)
        scored = [image_score(one, score_sigma, inside) for one in unified]
        maps = [masked_map(one[..., 0], inside, roi, sigma) for one in unified]
    return Judged(
        scores=np.array([score for score, _ in scored]),
        maps=np.stack(maps),
        cells=np.array([cell for _, cell in scored]),
        unified=unified,
    )
