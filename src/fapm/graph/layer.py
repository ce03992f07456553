"""One layer of the search: its cells against the keys of their patches, as nodes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fapm.graph.buckets import padded
from fapm.graph.layer_plan import LayerPlan
from fapm.graph.writer import FAR, Writer
from fapm.memory.bank import MemoryBank

SearchPrecision = Literal["fp32", "int8"]
# Bytes of one number of a key.
ITEM_BYTES: dict[SearchPrecision, int] = {"fp32": 4, "int8": 1}

_FAR_KEY = 1e14  # every coordinate of the key that is not there; its square is finite
_ABSENT = 1e25  # above it a squared distance means: no such key
HEADROOM = 1.5  # queries may exceed the keys' range by this factor before they are clipped
# What rounding may leave of no distance at all, as a share of the squared norms: so much is taken
# off every squared distance, so that a picture equals its copy.
_NOISE = 8 * float(np.finfo(np.float32).eps)
SHORTLIST = 8  # nearest keys by the products that are compared again, at least
_STEP = 2 * HEADROOM / 255  # of the 8-bit queries


class Layer:
    """One layer's cells against their keys, in the rows of its :class:`LayerPlan`.

    Parameters
    ----------
    feature
        name of the layer's feature maps, float32 ``[1, C, H, W]``.
    """

    def __init__(
        self,
        graph: Writer,
        bank: MemoryBank,
        feature: str,
        plan: LayerPlan,
        precision: SearchPrecision,
    ) -> None:
        self._graph, self._bank, self._plan = graph, bank, plan
        cells_last = graph.add("Transpose", feature, perm=[0, 2, 3, 1])
        self._cells = graph.reshape(cells_last, [-1, bank.keys.shape[1]])  # [H * W, C]
        queries = graph.add("Gather", self._cells, graph.array(plan.cells), axis=0)  # [P, V, C]

        # Centred by patch: small numbers keep their digits.
        keys = [bank.keys[rows].astype(np.float64) for rows in plan.keys]
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
        # [P, 1]; |q - k|^2 / 2 times this is a squared distance in the bank's unit.
        self._areas = np.asarray((2 * ranges**2 / bank.unit**2)[:, None], np.float32)

        compare = self._products_int8 if precision == "int8" else self._products
        # |q|^2 / 2 [P, V], and per bucket |k|^2 / 2 - q.k [P_b, V, K_b] and its minimum [P_b, V].
        self._half_norms, self._by_bucket = compare(queries, keys)
        self._minima = [graph.add("ReduceMin", p, axes=[2], keepdims=0) for p in self._by_bucket]

    def nearest(self) -> str:
        """Distances to the nearest key of the finest grid's inspected cells, float32 ``[n]``."""
        graph, minima = self._graph, self._minima
        nearest = minima[0] if len(minima) == 1 else graph.add("Concat", *minima, axis=0)
        squared = graph.add("Add", nearest, self._half_norms)
        squared = graph.add("Mul", squared, graph.array(self._areas))
        distances = graph.add("Sqrt", graph.add("Relu", squared))
        distances = graph.reshape(distances, [-1])
        spread = self._plan.spread
        copies = spread.shape[1]
        index = spread if copies > 1 else spread[:, 0]
        distances = graph.add("Gather", distances, graph.array(index), axis=0)
        if copies > 1:
            distances = graph.add("ReduceMin", distances, axes=[1], keepdims=0)
        return str(distances)

    def at(self, worst: str, count: int) -> tuple[str, str]:
        """The ``count`` nearest keys of some cells of the finest grid.

        The products shortlist them; plain differences in float32 put them in order.

        Parameters
        ----------
        worst
            int64 ``[R]``, cells among the ``n`` that are inspected.

        Returns
        -------
        distances float32 ``[R, b]`` ascending, and the nearest key's row in the bank, int64
        ``[R, 1]``.
        """
        graph, plan = self._graph, self._plan
        candidates = plan.found.shape[1] * sum(plan.widths)
        shortlist, kept = min(max(SHORTLIST, 2 * count), candidates), min(count, candidates)
        keys = self._shortlisted(self._products_at(worst), worst, shortlist)
        distances, key = self._in_order(keys, worst, kept)
        if plan.fewest_keys < count:
            distances = self._fill(distances, count - kept)
        distances = graph.add("Mul", distances, graph.array(1 / self._bank.unit, np.float32))
        return distances, key

    def _products_at(self, worst: str) -> str:
        """Values that rank the keys of a cell, ``[R, m, K]``; ``FAR`` for keys of other patches."""
        graph, plan = self._graph, self._plan
        parts = []
        for number, product in enumerate(self._by_bucket):
            at_worst = self._table(plan.rows_within(number), worst)  # [R, m]
            flat = graph.reshape(product, [-1, plan.widths[number]])
            parts.append(graph.add("Gather", flat, at_worst, axis=0))  # [R, m, K_b]
        half = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=2)
        # The pads inside a bucket are FAR by themselves.
        if len(parts) > 1 or plan.missing.any():
            _, elsewhere = plan.columns()
            mask = graph.array(np.where(elsewhere, FAR, 0), np.float32)
            here = graph.add("Gather", mask, self._table(plan.bucket, worst))
            half = graph.add("Add", half, here)
        if plan.rows.shape[1] > 1:  # patches have centres and ranges of their own
            own = self._table(plan.rows, worst)  # [R, m]
            norms = graph.add("Gather", graph.reshape(self._half_norms, [-1]), own, axis=0)
            half = graph.add("Add", half, graph.add("Unsqueeze", norms, graph.array([2])))
            areas = self._areas[plan.rows // plan.cells.shape[1]]
            half = graph.add("Mul", half, self._table(areas, worst))  # [R, m, 1]
        return str(half)

    def _shortlisted(self, products: str, worst: str, count: int) -> str:
        """Rows in the bank of the ``count`` best keys, int64 ``[R, s]``; past its end for none."""
        graph, (base, elsewhere) = self._graph, self._plan.columns()
        copies, width = self._plan.rows.shape[1], elsewhere.shape[1]
        half = graph.reshape(products, [-1, copies * width])
        position = graph.top_of_many(half, (-1, copies * width), count, largest=False)
        # From the place in a row of products to the row of the bank: K tables would be larger than
        # the keys themselves where there are thousands of patches.
        near_half = graph.add("GatherElements", half, position, axis=1)  # [R, s]
        present = graph.add("Less", near_half, graph.array(FAR**0.5, np.float32))
        base_at, column = self._table(base[self._plan.patch], worst), position  # [R, m], [R, s]
        if copies > 1:
            edge = graph.array(width, np.int64)
            copy = graph.add("Div", position, edge)
            column = graph.add("Sub", position, graph.add("Mul", copy, edge))
            base_at = graph.add("GatherElements", base_at, copy, axis=1)
        key = graph.add("Add", column, base_at)
        return str(graph.add("Where", present, key, graph.array(len(self._bank.keys), np.int64)))

    def _in_order(self, key: str, worst: str, count: int) -> tuple[str, str]:
        """The ``count`` nearest of the keys ``[R, s]``, and the nearest; distances in raw units."""
        graph, channels = self._graph, self._bank.keys.shape[1]
        absent = np.full((1, channels), _FAR_KEY, np.float32)
        keys = graph.array(np.concatenate([self._bank.keys, absent]))
        near = graph.add("Gather", keys, key, axis=0)  # [R, s, C]
        own = self._table(self._plan.onto_finest[:, None], worst)
        apart = graph.add("Sub", near, graph.add("Gather", self._cells, own))  # minus [R, 1, C]
        squared = graph.add(
            "ReduceSum", graph.add("Mul", apart, apart), graph.array([2], np.int64), keepdims=0
        )
        squared, position = graph.top(squared, count, axis=1, largest=False)
        key = graph.add("GatherElements", key, graph.slice(position, 0, 1, axis=1), axis=1)
        return str(graph.add("Sqrt", squared)), str(key)

    def _fill(self, distances: str, more: int) -> str:
        """A missing rank takes the last one present, as :func:`fapm.memory.scoring.fill_ranks`.

        Parameters
        ----------
        more
            ranks to put behind those of ``distances``.
        """
        graph = self._graph
        present = graph.add("Less", distances, graph.array(_ABSENT**0.5, np.float32))
        known = graph.add("Where", present, distances, graph.array(0, np.float32))
        last = graph.add("ReduceMax", known, axes=[1], keepdims=1)  # [R, 1]
        distances = graph.add("Where", present, distances, last)
        if more:
            distances = graph.add("Concat", distances, *[last] * more, axis=1)
        return str(distances)

    def _table(self, values: NDArray[Any], rows: str) -> str:
        """``values[rows]`` of a constant."""
        return str(self._graph.add("Gather", self._graph.array(values), rows, axis=0))

    def _products(self, queries: str, keys: list[NDArray[np.float64]]) -> tuple[str, list[str]]:
        """``|q|^2 / 2`` ``[P, V]``, and per bucket ``|k|^2 / 2 - q.k`` ``[P_b, V, K_b]``."""
        graph = self._graph
        products = []
        for part, (start, stop) in self._split(queries):
            norms = [(k**2).sum(axis=1) / 2 for k in keys[start:stop]]
            norms = [n - _NOISE * n.max() for n in norms]
            block = graph.array(-padded(keys[start:stop], 0).transpose(0, 2, 1), np.float32)
            product = graph.add("MatMul", part, block)
            products.append(
                graph.add("Add", product, graph.array(padded(norms, FAR)[:, None], np.float32))
            )
        return self._half_sum(graph.add("Mul", queries, queries), _NOISE), products

    def _products_int8(
        self, queries: str, keys: list[NDArray[np.float64]]
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
        for part, (start, stop) in self._split(lifted):
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
        return self._half_sum(graph.add("Add", squares, excess)), products

    def _half_sum(self, squares: str, noise: float = 0) -> str:
        graph = self._graph
        axes = graph.array([2], np.int64)
        total = graph.add("ReduceSum", squares, axes, keepdims=0)
        return str(graph.add("Mul", total, graph.array((1 - noise) / 2, np.float32)))

    def _split(self, queries: str) -> list[tuple[str, tuple[int, int]]]:
        """Each bucket's share of the queries ``[P, V, C]``, and its patches."""
        buckets = self._plan.buckets
        if len(buckets) == 1:
            return [(queries, buckets[0])]
        sizes = self._graph.array([stop - start for start, stop in buckets], np.int64)
        parts = self._graph.add("Split", queries, sizes, outputs=len(buckets), axis=0)
        return list(zip(parts, buckets, strict=True))
