"""A frame's tiles through an encoder: in one graph, but one tile after the other.

Not as a batch: its activations would leave the CPU's cache, and its memory would grow with the
frame (measured, ``docs/decisions.md``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.compose
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fapm.frames.layout import Layout


def corners(layout: Layout, inspected: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Top and left of the tiles that are encoded; ``inspected`` is bool ``[T]``."""
    everywhere = [(top, left) for top in layout.rows.starts for left in layout.columns.starts]
    return [corner for corner, wanted in zip(everywhere, inspected, strict=True) if wanted]


def tiled_onnx(
    encoder: onnx.ModelProto,
    shapes: Sequence[tuple[int, int, int]],
    layout: Layout,
    inspected: NDArray[np.bool_],
) -> onnx.ModelProto:
    """An encoder of tiles as one of frames, which cuts them.

    Parameters
    ----------
    encoder
        input uint8 ``[1, S, S, 3]``, outputs float32 ``[1, C, H, W]``.
    shapes
        ``C, H, W`` of each output.
    inspected
        bool ``[T]``, tiles of which anything is inspected.

    Returns
    -------
    input ``frame`` uint8 ``[1, h, w, 3]``, outputs as the encoder's, with a row for each of those
    tiles.
    """
    places = corners(layout, inspected)
    cutting, constants = _cut(places, layout.tile_shape)
    names = [value.name for value in encoder.graph.output]
    body = _body(encoder.graph, shapes, layout.tile_shape)
    scan = helper.make_node("Scan", ["tiles"], names, body=body, num_scan_inputs=1)
    whole = helper.make_graph(
        [*cutting, scan],
        "fapm-tiles",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, *layout.shape, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(places), *shape])
            for name, shape in zip(names, shapes, strict=True)
        ],
        constants,
    )
    model = helper.make_model(whole, opset_imports=encoder.opset_import)
    model.ir_version = encoder.ir_version
    return model


def _cut(
    places: Sequence[tuple[int, int]], tile_shape: tuple[int, int]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """``frame`` cut into ``tiles`` uint8 ``[T, h, w, 3]``: the nodes, and their constants."""
    height, width = tile_shape
    constants: list[onnx.TensorProto] = []

    def constant(name: str, values: Sequence[int]) -> str:
        constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    edges = constant("tile_edges", [1, 2])
    nodes = []
    for number, (top, left) in enumerate(places):
        start = constant(f"tile_{number}_from", [top, left])
        stop = constant(f"tile_{number}_to", [top + height, left + width])
        nodes.append(helper.make_node("Slice", ["frame", start, stop, edges], [f"tile_{number}"]))
    tiles = [node.output[0] for node in nodes]
    return [*nodes, helper.make_node("Concat", tiles, ["tiles"], axis=0)], constants


def _body(
    encoder: onnx.GraphProto,
    shapes: Sequence[tuple[int, int, int]],
    tile_shape: tuple[int, int],
) -> onnx.GraphProto:
    """The encoder as the body of a loop over tiles: ``row`` in, ``row_...`` out."""
    # Names are the whole model's: those of the loop's body are not to be used twice.
    graph = onnx.compose.add_prefix_graph(encoder, "tile/")
    # Scan hands its body rows without their first axis.
    (given,), axis = graph.input, numpy_helper.from_array(np.array([0]), "row_axis")
    nodes = [helper.make_node("Unsqueeze", ["row", "row_axis"], [given.name]), *graph.node]
    nodes += [
        helper.make_node("Squeeze", [value.name, "row_axis"], [f"row_{value.name}"])
        for value in graph.output
    ]
    return helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("row", TensorProto.UINT8, [*tile_shape, 3])],
        [
            helper.make_tensor_value_info(f"row_{value.name}", TensorProto.FLOAT, shape)
            for value, shape in zip(graph.output, shapes, strict=True)
        ],
        [*graph.initializer, axis],
    )
