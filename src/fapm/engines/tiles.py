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

from fapm.layout import Layout


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
    # Names are the whole model's: those of the loop's body are not to be used twice.
    graph = onnx.compose.add_prefix_graph(encoder.graph, "tile/")
    height, width = layout.tile_shape
    places = corners(layout, inspected)
    constants: list[onnx.TensorProto] = []

    def constant(name: str, values: Sequence[int]) -> str:
        constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    edges = constant("tile_edges", [1, 2])
    nodes = [
        helper.make_node(
            "Slice",
            [
                "frame",
                constant(f"tile_{i}_from", [top, left]),
                constant(f"tile_{i}_to", [top + height, left + width]),
                edges,
            ],
            [f"tile_{i}"],
        )
        for i, (top, left) in enumerate(places)
    ]
    nodes.append(
        helper.make_node("Concat", [f"tile_{i}" for i in range(len(places))], ["tiles"], axis=0)
    )
    # Scan hands its body rows without their first axis.
    (given,), row = graph.input, numpy_helper.from_array(np.array([0]), "row_axis")
    inside = [helper.make_node("Unsqueeze", ["row", "row_axis"], [given.name]), *graph.node]
    inside += [
        helper.make_node("Squeeze", [value.name, "row_axis"], [f"row_{value.name}"])
        for value in graph.output
    ]
    body = helper.make_graph(
        inside,
        "encoder",
        [helper.make_tensor_value_info("row", TensorProto.UINT8, [height, width, 3])],
        [
            helper.make_tensor_value_info(f"row_{value.name}", TensorProto.FLOAT, shape)
            for value, shape in zip(graph.output, shapes, strict=True)
        ],
        [*graph.initializer, row],
    )
    names = [value.name for value in encoder.graph.output]
    nodes.append(helper.make_node("Scan", ["tiles"], names, body=body, num_scan_inputs=1))
    whole = helper.make_graph(
        nodes,
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
