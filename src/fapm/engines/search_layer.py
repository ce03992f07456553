"""One layer of the search: its cells against the keys of their patches."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.engines.buckets import cut_buckets, padded
from fapm.engines.onnx_writer import FAR, Writer
from fapm.memory import geometry
from fapm.memory.bank import MemoryBank

SearchPrecision = Literal["fp32", "int8"]

_FAR_KEY = 1e14  # every coordinate of the key that is not there; its square is finite
_ABSENT = 1e25  # above it a squared distance means: no such key
HEADROOM = 1.5  # queries may exceed the keys' range by this factor before they are clipped
# What rounding may leave of no distance at all, as a share of the squared norms: so much is taken
# off every squared distance, so that a picture equals its copy.
_NOISE = 8 * float(np.finfo(np.float32).eps)
SHORTLIST = 8  # nearest keys by the products that are compared again, at least
_STEP = 2 * HEADROOM / 255  # of the 8-bit queries
# What one more bucket costs (a few nodes, by 5 us each), in bytes of keys read in that time.
_BUCKET_BYTES = 200_000
_MAX_BUCKETS = 8


class Layer:
    """One layer's cells against their keys.

    Patches are renumbered in the order of their number of keys. A patch's ``V`` rows are the cells
    that are compared with its keys: its own and, for ``radius > 0``, its neighbours'. Patches with
    fewer cells repeat one.

    Attributes
    ----------
    minima
        per bucket float32 ``[P_b, V]``, ``|k|^2 / 2 - q.k`` of the nearest key.
    half_norms
        float32 ``[P, V]``, ``|q|^2 / 2``.
    areas
        float32 ``[P, 1]``; times the sum of the two gives squared distances in the bank's unit.
    spread
        int64 ``[H * W, n]``: where among the ``P * V`` rows each cell of the finest grid is found;
        the nearest of the ``n`` counts. Of those grid cells that are inspected, here and in ``at``.
    """

    def __init__(
        self,
        graph: Writer,
        bank: MemoryBank,
        feature: str,
        onto_finest: NDArray[np.int64],
        config: Config,
        precision: SearchPrecision,
    ) -> None:
        self._graph, self._bank, self._config = graph, bank, config
        self._onto_finest = onto_finest
        counts = np.diff(bank.offsets)
        own = geometry.cells_by_patch(bank.height, bank.width, bank.grid, bank.inside)
        patch_rows, patch_columns = geometry.patch_grid(bank.height, bank.width, bank.grid)
        around = geometry.neighbour_patches(patch_rows, patch_columns, config.radius)
        compared = [np.concatenate([own[q] for q in neighbours]) for neighbours in around]
        searched = [p for p, cells in enumerate(compared) if len(cells) and counts[p]]
        order = sorted(searched, key=lambda p: counts[p])
        compared = [compared[p] for p in order]
        width = max(map(len, compared))
        rows: list[list[int]] = [[] for _ in range(bank.height * bank.width)]
        for patch, cells in enumerate(compared):
            for position, cell in enumerate(cells):
                rows[cell].append(patch * width + position)
        copies = max(map(len, rows))
        found = np.array([r + [-1] * (copies - len(r)) for r in rows])  # [h * w, n]
        self._found = found[onto_finest]
        self.spread = np.where(found < 0, found[:, :1], found)[onto_finest]
        self.patches, self.cells_per_patch = len(order), width

        channels = bank.keys.shape[1]
        cells_last = graph.add("Transpose", feature, perm=[0, 2, 3, 1])
        self._cells = graph.reshape(cells_last, [-1, channels])  # [h * w, C]
        index = np.stack([np.pad(c, (0, width - len(c)), mode="edge") for c in compared])
        queries = graph.add("Gather", self._cells, graph.array(index), axis=0)  # [P, V, C]

        # Centred by patch: small numbers keep their digits.
        keys = [bank.keys[bank.offsets[p] : bank.offsets[p + 1]].astype(np.float64) for p in order]
        centres = np.stack([k.mean(axis=0) for k in keys])
        keys = [k - c for k, c in zip(keys, centres, strict=True)]
        queries = graph.add("Sub", queries, graph.array(centres[:, None], np.float32))
        ranges = np.ones(len(keys))
        if precision == "int8":
            # Each patch by its own range, so that quiet patches keep their digits in 8 bits. Keys
            # are the extremes of what was seen: their range serves the queries too.
            ranges = np.array([np.abs(k).max() for k in keys])
            ranges = np.where(ranges > 0, ranges, np.maximum(np.abs(centres).max(axis=1), 1e-6))
            keys = [k / r for k, r in zip(keys, ranges, strict=True)]
            inverse = graph.array(1 / ranges[:, None, None], np.float32)
            queries = graph.add("Mul", queries, inverse)
        self.areas = np.asarray((2 * ranges**2 / bank.unit**2)[:, None], np.float32)

        # The key itself, and its products with the patch's cells, written and read again.
        key_bytes = channels * (4 if precision == "fp32" else 1) + 8 * width
        self._cuts = cut_buckets(counts[order], _BUCKET_BYTES / key_bytes, _MAX_BUCKETS)
        self._keys_of_patch = [np.arange(bank.offsets[p], bank.offsets[p + 1]) for p in order]
        compare = self._products_int8 if precision == "int8" else self._products
        self.half_norms, products = compare(queries, keys, self._cuts)
        self._products_by_bucket = products
        self.minima = [graph.add("ReduceMin", p, axes=[2], keepdims=0) for p in products]

    def _products(
        self, queries: str, keys: list[NDArray[np.float64]], cuts: list[tuple[int, int]]
    ) -> tuple[str, list[str]]:
        """``|q|^2 / 2`` ``[P, V]``, and per bucket ``|k|^2 / 2 - q.k`` ``[P_b, V, K_b]``."""
        graph = self._graph
        products = []
        for part, (start, stop) in zip(self._split(queries, cuts), cuts, strict=True):
            norms = [(k**2).sum(axis=1) / 2 for k in keys[start:stop]]
            norms = [n - _NOISE * n.max() for n in norms]
            block = graph.array(-padded(keys[start:stop], 0).transpose(0, 2, 1), np.float32)
            product = graph.add("MatMul", part, block)
            products.append(
                graph.add("Add", product, graph.array(padded(norms, FAR)[:, None], np.float32))
            )
        return self._half_norms(graph.add("Mul", queries, queries), _NOISE), products

    def _products_int8(
        self, queries: str, keys: list[NDArray[np.float64]], cuts: list[tuple[int, int]]
    ) -> tuple[str, list[str]]:
        """:meth:`_products` with 8-bit factors.

        Rounding moves a point by e, its product with a key by e.k, which is large; the distance
        between rounded points by about \\|e\\|, which is not. So norms are those of what was
        rounded, and only what was clipped counts as it is. Queries are lifted above 0, since
        unsigned by signed is what CPUs multiply fastest.
        """
        graph = self._graph
        channels = keys[0].shape[1]
        lift = graph.array(HEADROOM, np.float32)
        scale, zero = graph.array(_STEP, np.float32), graph.array(0, np.uint8)
        lifted = graph.add("Add", queries, lift)
        lifted = graph.add("QuantizeLinear", lifted, scale, zero)
        lifted = graph.add("DequantizeLinear", lifted, scale, zero)
        products = []
        key_scale = graph.array(1 / 127, np.float32)
        for part, (start, stop) in zip(self._split(lifted, cuts), cuts, strict=True):
            rounded = [np.rint(k * 127) for k in keys[start:stop]]
            norms = [
                ((r / 127) ** 2 - (k - r / 127) ** 2).sum(axis=1) / 2
                + HEADROOM * (r / 127).sum(axis=1)
                - channels * _STEP**2 / 24
                for k, r in zip(keys[start:stop], rounded, strict=True)
            ]
            block = graph.array(-padded(rounded, 0), np.int8)
            block = graph.add("DequantizeLinear", block, key_scale)
            block = graph.add("Transpose", block, perm=[0, 2, 1])
            product = graph.add("MatMul", part, block)
            products.append(
                graph.add("Add", product, graph.array(padded(norms, FAR)[:, None], np.float32))
            )
        clipped = graph.add("Clip", queries, graph.array(-HEADROOM, np.float32), lift)
        excess = graph.add(
            "Sub", graph.add("Mul", queries, queries), graph.add("Mul", clipped, clipped)
        )
        rounded_queries = graph.add("Sub", lifted, lift)
        squares = graph.add("Mul", rounded_queries, rounded_queries)
        return self._half_norms(graph.add("Add", squares, excess)), products

    def _half_norms(self, squares: str, noise: float = 0) -> str:
        graph = self._graph
        axes = graph.array([2], np.int64)
        total = graph.add("ReduceSum", squares, axes, keepdims=0)
        return str(graph.add("Mul", total, graph.array((1 - noise) / 2, np.float32)))

    def _split(self, queries: str, cuts: list[tuple[int, int]]) -> list[str]:
        if len(cuts) == 1:
            return [queries]
        sizes = self._graph.array([stop - start for start, stop in cuts], np.int64)
        parts: list[str] = self._graph.add("Split", queries, sizes, outputs=len(cuts), axis=0)
        return parts

    def at(self, worst: str) -> tuple[str, str]:
        """The nearest keys of some cells of the finest grid, int64 ``[R]``.

        The products have shortlisted them; plain differences in float32 put them in order.

        Returns
        -------
        distances float32 ``[R, b]`` ascending, and the nearest key's row in the bank, int64
        ``[R, 1]``.
        """
        graph, count = self._graph, self._config.neighbours
        # Cells at the border are found in fewer patches: what is missing has no keys.
        missing = self._found < 0  # [H * W, n]
        rows = np.where(missing, 0, self._found)
        patch = np.where(missing, self.patches, rows // self.cells_per_patch)
        bounds = np.array([start for start, _ in self._cuts[1:]])
        bucket = np.where(missing, len(self._cuts), np.searchsorted(bounds, patch, side="right"))
        halves = []
        for number, ((start, stop), product) in enumerate(
            zip(self._cuts, self._products_by_bucket, strict=True)
        ):
            local = np.where(bucket == number, rows - start * self.cells_per_patch, 0)
            at_worst = self._table(local, worst)  # [R, n]
            width = len(self._keys_of_patch[stop - 1])
            flat = graph.reshape(product, [-1, width])
            halves.append(graph.add("Gather", flat, at_worst, axis=0))  # [R, n, K_b]
        half = halves[0] if len(halves) == 1 else graph.add("Concat", *halves, axis=2)
        # FAR where another bucket has the patch; the pads inside a bucket are FAR by themselves.
        base, elsewhere = self._columns()
        if len(halves) > 1 or missing.any():
            mask = graph.array(elsewhere, np.float32)
            half = graph.add("Add", half, graph.add("Gather", mask, self._table(bucket, worst)))
        copies, width = rows.shape[1], elsewhere.shape[1]  # K = sum of K_b
        if copies > 1:  # patches have centres and ranges of their own
            own = self._table(rows, worst)  # [R, n]
            norms = graph.add("Gather", graph.reshape(self.half_norms, [-1]), own, axis=0)
            half = graph.add("Add", half, graph.add("Unsqueeze", norms, graph.array([2])))
            areas = self._table(self.areas[rows // self.cells_per_patch], worst)  # [R, n, 1]
            half = graph.add("Mul", half, areas)
        half = graph.reshape(half, [-1, copies * width])
        shortlist = min(max(SHORTLIST, 2 * count), copies * width)
        position = graph.top_of_many(half, (-1, copies * width), shortlist, largest=False)
        # From the place in a row of products to the row of the bank: K tables would be larger than
        # the keys themselves where there are thousands of patches.
        near_half = graph.add("GatherElements", half, position, axis=1)  # [R, m]
        present = graph.add("Less", near_half, graph.array(FAR**0.5, np.float32))
        base_at, column = self._table(base[patch], worst), position  # [R, n], [R, m]
        if copies > 1:
            edge = graph.array(width, np.int64)
            copy = graph.add("Div", position, edge)
            column = graph.add("Sub", position, graph.add("Mul", copy, edge))
            base_at = graph.add("GatherElements", base_at, copy, axis=1)
        key = graph.add("Add", column, base_at)
        key = graph.add("Where", present, key, graph.array(len(self._bank.keys), np.int64))

        channels = self._bank.keys.shape[1]
        absent = np.full((1, channels), _FAR_KEY, np.float32)
        keys = graph.array(np.concatenate([self._bank.keys, absent]))
        near = graph.add("Gather", keys, key, axis=0)  # [R, m, C]
        query = graph.add("Gather", self._cells, self._table(self._onto_finest[:, None], worst))
        apart = graph.add("Sub", near, query)  # minus [R, 1, C]
        squared = graph.add(
            "ReduceSum", graph.add("Mul", apart, apart), graph.array([2], np.int64), keepdims=0
        )
        kept = min(count, shortlist)
        squared, position = graph.top(squared, kept, axis=1, largest=False)
        key = graph.add("GatherElements", key, graph.slice(position, 0, 1, axis=1), axis=1)
        distances = graph.add("Sqrt", squared)
        if min(len(keys) for _, keys in self._bank.search_sets(self._config.radius)) < count:
            distances = self._fill(distances, kept)
        distances = graph.add("Mul", distances, graph.array(1 / self._bank.unit, np.float32))
        return str(distances), str(key)

    def _table(self, values: NDArray[Any], rows: str) -> str:
        """``values[rows]`` of a constant."""
        return str(self._graph.add("Gather", self._graph.array(values), rows, axis=0))

    def _columns(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """What lies where in a row of products, all buckets side by side.

        Returns
        -------
        int64 ``[P + 1]``, what is added to a column to have the key's row in the bank; and float64
        ``[B + 1, K]``, 0 for the bucket's own columns, else :data:`FAR`. The last of each stands
        for no patch at all.
        """
        widths = [len(self._keys_of_patch[stop - 1]) for _, stop in self._cuts]
        starts = np.cumsum([0, *widths])
        base = np.zeros(self.patches + 1, np.int64)
        elsewhere = np.full((len(widths) + 1, starts[-1]), FAR)
        for number, (start, stop) in enumerate(self._cuts):
            elsewhere[number, starts[number] : starts[number + 1]] = 0
            base[start:stop] = [
                keys[0] - starts[number] for keys in self._keys_of_patch[start:stop]
            ]
        return base, elsewhere

    def _fill(self, distances: str, kept: int) -> str:
        """A missing rank takes the last one present, as :func:`fapm.memory.scoring.fill_ranks`."""
        graph, count = self._graph, self._config.neighbours
        present = graph.add("Less", distances, graph.array(_ABSENT**0.5, np.float32))
        known = graph.add("Where", present, distances, graph.array(0, np.float32))
        last = graph.add("ReduceMax", known, axes=[1], keepdims=1)  # [R, 1]
        distances = graph.add("Where", present, distances, last)
        if kept < count:
            distances = graph.add("Concat", distances, *[last] * (count - kept), axis=1)
        return str(distances)
