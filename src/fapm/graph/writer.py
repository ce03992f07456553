"""Nodes and constants of an ONNX graph, written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fapm.encoder.spec import OPSET
from fapm.graph.scored import OUTPUTS

IR_VERSION = 8  # what ONNX Runtime 1.15 and OpenVINO 2023 already read

FAR = 1e30  # beyond every number of the graph; finite, so that no NaN can arise
_RUN = 32


class Writer:
    """Nodes and constants of an ONNX graph, in the order they are written."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._count = 0

    def array(self, value: Any, dtype: Any = None) -> str:
        """A constant."""
        name = self._name("c")
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; the name of its output, or of its several outputs as a list."""
        names = [self._name(kind.lower()) for _ in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, name=names[0], **attributes))
        return names[0] if outputs == 1 else names

    def reshape(self, value: str, shape: list[int]) -> str:
        return str(self.add("Reshape", value, self.array(shape, np.int64)))

    def slice(self, value: str, start: int, stop: int, axis: int) -> str:
        limits = [self.array([number], np.int64) for number in (start, stop, axis)]
        return str(self.add("Slice", value, *limits))

    def top(self, value: str, count: int, axis: int, largest: bool = True) -> tuple[str, str]:
        values, indices = self.add(
            "TopK", value, self.array([count], np.int64), outputs=2, axis=axis, largest=int(largest)
        )
        return values, indices

    def top_of_many(self, values: str, shape: tuple[int, int], count: int, *, largest: bool) -> str:
        """Positions int64 ``[R, count]`` of the extremes of finite ``values``, ``[R, width]``.

        Sorting hundreds of numbers would take longer than anything else behind the encoder. The
        ``count`` extremes lie in the ``count`` runs with the best extremes; only those are sorted.
        """
        rows, width = shape
        if width <= 4 * _RUN:
            return self.top(values, count, axis=1, largest=largest)[1]
        runs = -(-width // _RUN)
        if runs * _RUN > width:
            pads = self.array([0, 0, 0, runs * _RUN - width], np.int64)
            values = self.add("Pad", values, pads, self.array(-FAR if largest else FAR, np.float32))
        best = self.add(
            "ReduceMax" if largest else "ReduceMin",
            self.reshape(values, [rows, runs, _RUN]),
            axes=[2],
            keepdims=0,
        )
        kept = min(count, runs)
        _, run = self.top(best, kept, axis=1, largest=largest)  # [R, kept]
        run = self.add("Unsqueeze", run, self.array([2]))
        place = self.add("Add", self.add("Mul", run, self.array(_RUN)), self.array(np.arange(_RUN)))
        place = self.reshape(place, [rows, kept * _RUN])
        inside = self.add("GatherElements", values, place, axis=1)
        _, position = self.top(inside, count, axis=1, largest=largest)
        return str(self.add("GatherElements", place, position, axis=1))

    def model(
        self, inputs: list[tuple[str, list[int]]], outputs: list[tuple[str, list[int]]]
    ) -> onnx.ModelProto:
        types = [TensorProto.FLOAT] * 2 + [TensorProto.INT64, TensorProto.FLOAT, TensorProto.INT64]
        for (value, _), name in zip(outputs, OUTPUTS, strict=True):
            self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        graph = helper.make_graph(
            self._nodes,
            "fapm-search",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs],
            [
                helper.make_tensor_value_info(name, kind, shape)
                for name, kind, (_, shape) in zip(OUTPUTS, types, outputs, strict=True)
            ],
            self._constants,
        )
        return helper.make_model(
            graph,
            producer_name="fapm",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"
