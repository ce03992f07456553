"""The search, written as an ONNX graph: feature maps in; score, map and worst cell out.

It says what :class:`fapm.graph.Graph` says behind the encoder, in operations arranged so that next
to nothing follows the encoder:

- patches are sorted by their number of keys and cut into a few buckets, each padded to its largest;
  one batched product per bucket compares every cell with every key of its patch;
- ``|q - k|^2 / 2 = |q|^2 / 2 + (|k|^2 / 2 - q.k)``: the minimum over keys needs one addition, and
  pads, whose ``|k|^2 / 2`` is :data:`fapm.engines.onnx_writer.FAR`, never win;
- the ``b`` nearest keys are looked for at the worst cell only, by plain differences in float32;
  everywhere else the minimum is enough;
- with ``precision="int8"`` products run on 8-bit keys and queries (a quarter of the bytes: keys are
  read once per frame and do not stay in the cache). Where the score is a single cell's distance
  (``score_sigma = 0``) the :data:`RECHECKED` worst cells are then compared again in float32;
  smoothed, it is of many cells, exact to 0.3 % where the picture is like the good ones, and to a
  few percent far beyond.

No torch here: whoever inspects with a bundle writes the graph anew from its memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from fapm.config import Config
from fapm.engines.onnx_writer import Writer
from fapm.engines.search_layer import Layer, SearchPrecision
from fapm.layout import Layout, layout_of
from fapm.memory import geometry
from fapm.memory.bank import MemoryBank

RECHECKED = 4  # worst cells compared again in float32 (int8 search)


def write_search(
    banks: Sequence[MemoryBank],
    config: Config,
    shapes: Sequence[tuple[int, int, int]],
    precision: SearchPrecision = "fp32",
    roi: NDArray[np.bool_] | None = None,
    layout: Layout | None = None,
) -> onnx.ModelProto:
    """The graph behind the encoder, for one frame.

    Parameters
    ----------
    shapes
        ``C, H, W`` of each layer the encoder gives.
    roi
        bool ``[h, w]``, what is inspected of a frame; default: everything. Cells outside the banks'
        ``inside`` are not searched.
    layout
        of the frame; default: a square that is not cut.

    Returns
    -------
    model with inputs ``features_0 ..`` float32 ``[T, C, H, W]``, a row for each of the frame's
    tiles of which anything is inspected, and outputs :data:`OUTPUTS`: float32 ``[1]``, float32
    ``[1, h, w]``, int64 ``[1]``, float32 ``[1, L]``, int64 ``[1, L]``, as
    :class:`fapm.engines.Scored` describes them.
    """
    graph, layout = Writer(), layout or layout_of(config)
    names = [f"features_{i}" for i in range(len(shapes))]
    sizes = [(bank.height, bank.width) for bank in banks]
    tiles = layout.inspected_tiles([bank.inside for bank in banks], sizes)
    features = [
        _side_by_side(graph, _aggregate(graph, name), shape, layout, tiles)
        for name, shape in zip(names, shapes, strict=True)
    ]
    if not config.layer_wise:
        together = [(c, *layout.side_by_side((h, w))) for c, h, w in shapes]
        features = [_concatenate(graph, features, together)]
    finest = max(sizes, key=lambda size: size[0] * size[1])
    inspected = np.arange(finest[0] * finest[1])
    inside = None
    if roi is not None:
        (inside,) = layout.inside_cells(roi, [finest])
        inspected = np.flatnonzero(inside)
    layers = [
        Layer(
            graph,
            bank,
            feature,
            geometry.upsample_index(size, finest, config.coarse_upsampling)[inspected],
            config,
            precision,
        )
        for bank, feature, size in zip(banks, features, sizes, strict=True)
    ]

    unified = _unified(graph, layers)  # [n], of the n cells that are inspected
    cells, whole = len(inspected), unified  # [H * W]
    if roi is not None:  # 0 elsewhere
        place = np.full(finest[0] * finest[1], cells)
        place[inspected] = np.arange(cells)
        whole = graph.add("Concat", unified, graph.array([0], np.float32), axis=0)
        whole = graph.add("Gather", whole, graph.array(place), axis=0)
    levels = unified
    if config.score_sigma:
        smooth, weights = layout.cell_smoothing(finest, config.score_sigma), None
        if inside is not None:
            weights = geometry.map_weights(inside.reshape(finest), inside, smooth)
        levels = _smoothed(graph, whole, smooth, weights)
        levels = graph.reshape(levels, [finest[0] * finest[1]])
        if roi is not None:
            levels = graph.add("Gather", levels, graph.array(inspected), axis=0)
    # Smoothed levels are of many cells, which no second look at some of them would settle.
    alone = precision == "fp32" or config.score_sigma > 0
    count = 1 if alone else min(RECHECKED, cells)
    worst = graph.top_of_many(graph.reshape(levels, [1, cells]), (1, cells), count, largest=True)
    worst = graph.reshape(worst, [count])  # [R]
    found = [layer.at(worst) for layer in layers]
    ranks = found[0][0]
    for distances, _ in found[1:]:
        ranks = graph.add("Add", ranks, distances)  # [R, b]
    distances = graph.add(
        "Concat", *(graph.slice(d, 0, 1, axis=1) for d, _ in found), axis=1
    )  # [R, L]
    keys = graph.add("Concat", *(k for _, k in found), axis=1)  # [R, L]
    if count > 1:
        _, first = graph.top(graph.slice(ranks, 0, 1, axis=1), 1, axis=0)  # [1, 1]
        chosen = graph.reshape(first, [1])
        worst, ranks, distances, keys = (
            graph.add("Gather", value, chosen, axis=0) for value in (worst, ranks, distances, keys)
        )

    if config.score_sigma:
        score = graph.add("Gather", levels, worst, axis=0)  # [1]
    else:
        score = graph.reshape(graph.slice(ranks, 0, 1, axis=1), [1])
    if config.neighbours > 1:
        likely = graph.add("ReduceMax", graph.add("Softmax", ranks, axis=1), axes=[1], keepdims=0)
        score = graph.add("Mul", score, graph.add("Sub", graph.array([1.0], np.float32), likely))
    if roi is not None:
        worst = graph.add("Gather", graph.array(inspected), worst, axis=0)
    smooth, weights = layout.smoothing(finest, config.map_sigma), None
    if roi is not None and inside is not None:
        weights = geometry.map_weights(layout.on_map(roi), inside, smooth)
    maps = _smoothed(graph, whole, smooth, weights)
    outputs = [(score, [1]), (maps, [1, *layout.map_shape]), (worst, [1])]
    outputs += [(distances, [1, len(layers)]), (keys, [1, len(layers)])]
    return graph.model(
        [(name, [int(tiles.sum()), *shape]) for name, shape in zip(names, shapes, strict=True)],
        outputs,
    )


def _smoothed(
    graph: Writer,
    whole: str,
    smooth: tuple[NDArray[np.float64], NDArray[np.float64]],
    weights: NDArray[np.float64] | None,
) -> str:
    """Distances ``[H * W]`` of the finest grid, smoothed: ``[1, h, w]``.

    Parameters
    ----------
    smooth
        of rows ``[h, H]`` and of columns ``[w, W]``.
    weights
        :func:`fapm.memory.geometry.map_weights` ``[h, w]``, with a region of interest.
    """
    rows, columns = smooth
    cells = graph.reshape(whole, [1, rows.shape[1], columns.shape[1]])
    across = np.ascontiguousarray(columns.T, np.float32)
    smoothed = graph.add("MatMul", graph.array(rows, np.float32), cells)
    smoothed = graph.add("MatMul", smoothed, graph.array(across))
    if weights is not None:
        smoothed = graph.add("Mul", smoothed, graph.array(weights, np.float32))
    return str(smoothed)


def _aggregate(graph: Writer, features: str) -> str:
    return str(
        graph.add(
            "AveragePool", features, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
        )
    )


def _side_by_side(
    graph: Writer,
    features: str,
    shape: tuple[int, int, int],
    layout: Layout,
    inspected: NDArray[np.bool_],
) -> str:
    """:func:`fapm.memory.patches.side_by_side`, with zeros for tiles that were not encoded."""
    if layout.tiles == 1:
        return features
    channels, *cells = shape
    if not inspected.all():
        blank = graph.array(np.zeros((1, *shape)), np.float32)
        features = graph.add("Concat", features, blank, axis=0)
        rows = np.where(inspected, np.cumsum(inspected) - 1, inspected.sum())
        features = graph.add("Gather", features, graph.array(rows), axis=0)
    tiles = graph.reshape(features, [*layout.tiling, channels, *cells])
    tiles = graph.add("Transpose", tiles, perm=[2, 0, 3, 1, 4])
    return graph.reshape(tiles, [1, channels, *layout.side_by_side((cells[0], cells[1]))])


def _concatenate(graph: Writer, features: list[str], shapes: Sequence[tuple[int, int, int]]) -> str:
    """:func:`fapm.memory.patches.concatenate_layers`."""
    height, width = max((s[1:] for s in shapes), key=lambda size: size[0] * size[1])
    aligned = []
    for feature, (channels, rows, columns) in zip(features, shapes, strict=True):
        if (rows, columns) != (height, width):
            index = geometry.upsample_index((rows, columns), (height, width))
            flat = graph.reshape(feature, [1, channels, rows * columns])
            flat = graph.add("Gather", flat, graph.array(index), axis=2)
            feature = graph.reshape(flat, [1, channels, height, width])
        aligned.append(feature)
    return str(graph.add("Concat", *aligned, axis=1))


def _unified(graph: Writer, layers: list[Layer]) -> str:
    """Sum of the layers' distances to the nearest key on the finest grid, ``[H * W]``."""
    total = None
    for layer in layers:
        minima = layer.minima
        nearest = minima[0] if len(minima) == 1 else graph.add("Concat", *minima, axis=0)
        squared = graph.add("Add", nearest, layer.half_norms)
        squared = graph.add("Mul", squared, graph.array(layer.areas))
        distances = graph.add("Sqrt", graph.add("Relu", squared))
        distances = graph.reshape(distances, [-1])
        copies = layer.spread.shape[1]
        index = layer.spread if copies > 1 else layer.spread[:, 0]
        distances = graph.add("Gather", distances, graph.array(index), axis=0)
        if copies > 1:
            distances = graph.add("ReduceMin", distances, axes=[1], keepdims=0)
        total = distances if total is None else graph.add("Add", total, distances)
    assert total is not None
    return str(total)
