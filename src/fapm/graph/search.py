"""The search, written as an ONNX graph: feature maps in; score, map and worst cell out.

It says what :class:`fapm.graph.reference.Graph` says behind the encoder, in operations arranged so
that next
to nothing follows the encoder:

- patches are sorted by their number of keys and cut into a few buckets, each padded to its largest;
  one batched product per bucket compares every cell with every key of its patch;
- ``|q - k|^2 / 2 = |q|^2 / 2 + (|k|^2 / 2 - q.k)``: the minimum over keys needs one addition, and
  pads, whose ``|k|^2 / 2`` is :data:`fapm.graph.writer.FAR`, never win;
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

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from fapm.config import Config
from fapm.frames.layout import Layout, layout_of
from fapm.graph.layer import ITEM_BYTES, Layer, SearchPrecision
from fapm.graph.layer_plan import LayerPlan
from fapm.graph.writer import Writer
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
    :class:`fapm.graph.scored.Scored` describes them.
    """
    layout = layout or layout_of(config)
    return SearchGraph(banks, config, shapes, precision, roi, layout).write()


class Worst(NamedTuple):
    """Names of what is known of ``R`` cells, which are numbered among those inspected.

    Attributes
    ----------
    cell
        int64 ``[R]``.
    ranks
        float32 ``[R, b]``, sums of the layers' distances to their nearest, second nearest ... key.
    distances, keys
        per layer: float32 ``[R, L]`` to the nearest key and int64 ``[R, L]`` its row in the bank.
    """

    cell: str
    ranks: str
    distances: str
    keys: str


class SearchGraph:
    """The steps of the search, in the order of its methods. Each adds nodes to one graph.

    Methods take and give names of values. ``n`` cells of the finest grid are inspected, of
    ``H * W``. Parameters as of :func:`write_search`.
    """

    def __init__(
        self,
        banks: Sequence[MemoryBank],
        config: Config,
        shapes: Sequence[tuple[int, int, int]],
        precision: SearchPrecision,
        roi: NDArray[np.bool_] | None,
        layout: Layout,
    ) -> None:
        self._graph = Writer()
        self._banks, self._config, self._shapes = banks, config, shapes
        self._precision, self._roi, self._layout = precision, roi, layout
        self._sizes = [(bank.height, bank.width) for bank in banks]
        self._finest = geometry.finest(self._sizes)
        self._tiles = layout.inspected_tiles([bank.inside for bank in banks], self._sizes)
        self._inside = None if roi is None else layout.inside_cells(roi, [self._finest])[0]
        everything = np.ones(math.prod(self._finest), np.bool_)
        self._inspected = np.flatnonzero(everything if self._inside is None else self._inside)

    def write(self) -> onnx.ModelProto:
        """The whole graph."""
        names = [f"features_{i}" for i in range(len(self._shapes))]
        layers = self.layers(self.features(names))
        unified = self.unified(layers)
        everywhere = self.everywhere(unified)
        levels = self.levels(unified, everywhere)
        worst = self.worst(layers, levels)
        score = self.score(worst, levels)
        cell = self.cell(worst)
        maps = self.map(everywhere)
        count = len(layers)
        return self._graph.model(
            [
                (name, [int(self._tiles.sum()), *shape])
                for name, shape in zip(names, self._shapes, strict=True)
            ],
            [
                (score, [1]),
                (maps, [1, *self._layout.map_shape]),
                (cell, [1]),
                (worst.distances, [1, count]),
                (worst.keys, [1, count]),
            ],
        )

    def features(self, names: Sequence[str]) -> list[str]:
        """A frame's vectors for each memory bank, float32 ``[1, C, H, W]``, from the encoder's."""
        features = [
            self._side_by_side(self._pooled(name), shape)
            for name, shape in zip(names, self._shapes, strict=True)
        ]
        return features if self._config.layer_wise else [self._concatenated(features)]

    def layers(self, features: Sequence[str]) -> list[Layer]:
        """Each bank's cells compared with its keys."""
        layers = []
        for bank, feature, size in zip(self._banks, features, self._sizes, strict=True):
            onto = geometry.upsample_index(size, self._finest, self._config.coarse_upsampling)
            plan = LayerPlan.of(
                bank,
                onto[self._inspected],
                radius=self._config.radius,
                item_bytes=ITEM_BYTES[self._precision],
            )
            layers.append(Layer(self._graph, bank, feature, plan, self._precision))
        return layers

    def unified(self, layers: Sequence[Layer]) -> str:
        """Sum of the layers' distances to the nearest key, float32 ``[n]``."""
        total = layers[0].nearest()
        for layer in layers[1:]:
            total = self._graph.add("Add", total, layer.nearest())
        return total

    def everywhere(self, unified: str) -> str:
        """The same of the whole finest grid, float32 ``[H * W]``; 0 where nothing is inspected."""
        if self._roi is None:
            return unified
        cells = len(self._inspected)
        place = np.full(math.prod(self._finest), cells)
        place[self._inspected] = np.arange(cells)
        padded = self._graph.add("Concat", unified, self._graph.array([0], np.float32), axis=0)
        return str(self._graph.add("Gather", padded, self._graph.array(place), axis=0))

    def levels(self, unified: str, everywhere: str) -> str:
        """Values whose largest is that of the worst cell, float32 ``[n]``."""
        graph, sigma = self._graph, self._config.score_sigma
        if not sigma:
            return unified
        smooth, weights = self._layout.cell_smoothing(self._finest, sigma), None
        if self._inside is not None:
            on_grid = self._inside.reshape(self._finest)
            weights = geometry.map_weights(on_grid, self._inside, smooth)
        levels = self._smoothed(everywhere, smooth, weights)
        levels = graph.reshape(levels, [math.prod(self._finest)])
        if self._roi is not None:
            levels = graph.add("Gather", levels, graph.array(self._inspected), axis=0)
        return levels

    def worst(self, layers: Sequence[Layer], levels: str) -> Worst:
        """The worst cell (``R = 1``), with its nearest keys."""
        graph, cells = self._graph, len(self._inspected)
        # Smoothed levels are of many cells, which no second look at some of them would settle.
        alone = self._precision == "fp32" or self._config.score_sigma > 0
        count = 1 if alone else min(RECHECKED, cells)
        row = graph.reshape(levels, [1, cells])
        cell = graph.reshape(graph.top_of_many(row, (1, cells), count, largest=True), [count])
        found = [layer.at(cell, self._config.neighbours) for layer in layers]
        ranks = found[0][0]
        for distances, _ in found[1:]:
            ranks = graph.add("Add", ranks, distances)
        nearest = [graph.slice(distances, 0, 1, axis=1) for distances, _ in found]
        worst = Worst(
            cell,
            ranks,
            graph.add("Concat", *nearest, axis=1),
            graph.add("Concat", *(keys for _, keys in found), axis=1),
        )
        return worst if count == 1 else self._farthest(worst)

    def score(self, worst: Worst, levels: str) -> str:
        """The image score, float32 ``[1]``."""
        graph = self._graph
        if self._config.score_sigma:
            score = graph.add("Gather", levels, worst.cell, axis=0)
        else:
            score = graph.reshape(graph.slice(worst.ranks, 0, 1, axis=1), [1])
        if self._config.neighbours > 1:
            likely = graph.add("Softmax", worst.ranks, axis=1)
            likely = graph.add("ReduceMax", likely, axes=[1], keepdims=0)
            unlike = graph.add("Sub", graph.array([1.0], np.float32), likely)
            score = graph.add("Mul", score, unlike)
        return str(score)

    def cell(self, worst: Worst) -> str:
        """The worst cell's number on the finest grid, int64 ``[1]``."""
        if self._roi is None:
            return worst.cell
        numbers = self._graph.array(self._inspected)
        return str(self._graph.add("Gather", numbers, worst.cell, axis=0))

    def map(self, everywhere: str) -> str:
        """The anomaly map, float32 ``[1, h, w]``."""
        smooth, weights = self._layout.smoothing(self._finest, self._config.map_sigma), None
        if self._roi is not None and self._inside is not None:
            weights = geometry.map_weights(self._layout.on_map(self._roi), self._inside, smooth)
        return self._smoothed(everywhere, smooth, weights)

    def _pooled(self, features: str) -> str:
        return str(
            self._graph.add(
                "AveragePool", features, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
            )
        )

    def _side_by_side(self, features: str, shape: tuple[int, int, int]) -> str:
        """:func:`fapm.memory.patches.side_by_side`, with zeros for tiles that were not encoded."""
        graph, layout, inspected = self._graph, self._layout, self._tiles
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

    def _concatenated(self, features: Sequence[str]) -> str:
        """:func:`fapm.memory.patches.concatenate_layers`."""
        graph = self._graph
        sizes = [self._layout.side_by_side(shape[1:]) for shape in self._shapes]
        finest = geometry.finest(sizes)
        aligned = []
        for feature, (channels, *_), size in zip(features, self._shapes, sizes, strict=True):
            if size != finest:
                index = geometry.upsample_index(size, finest)
                flat = graph.reshape(feature, [1, channels, math.prod(size)])
                flat = graph.add("Gather", flat, graph.array(index), axis=2)
                feature = graph.reshape(flat, [1, channels, *finest])
            aligned.append(feature)
        return str(graph.add("Concat", *aligned, axis=1))

    def _farthest(self, worst: Worst) -> Worst:
        """Of several cells the one that is farthest from its nearest keys."""
        graph = self._graph
        _, first = graph.top(graph.slice(worst.ranks, 0, 1, axis=1), 1, axis=0)  # [1, 1]
        chosen = graph.reshape(first, [1])
        return Worst(*(graph.add("Gather", value, chosen, axis=0) for value in worst))

    def _smoothed(
        self,
        everywhere: str,
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
        graph, (rows, columns) = self._graph, smooth
        cells = graph.reshape(everywhere, [1, rows.shape[1], columns.shape[1]])
        across = np.ascontiguousarray(columns.T, np.float32)
        smoothed = graph.add("MatMul", graph.array(rows, np.float32), cells)
        smoothed = graph.add("MatMul", smoothed, graph.array(across))
        if weights is not None:
            smoothed = graph.add("Mul", smoothed, graph.array(weights, np.float32))
        return str(smoothed)
