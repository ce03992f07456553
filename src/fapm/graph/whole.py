"""The whole detector as one ONNX model."""

from __future__ import annotations

import onnx
import onnx.compose

from fapm.bundle.fitted import Fitted
from fapm.graph.layer import SearchPrecision
from fapm.graph.search import write_search
from fapm.graph.tiles import tiled_onnx


def search_model(fitted: Fitted, precision: SearchPrecision = "fp32") -> onnx.ModelProto:
    """Everything behind the encoder."""
    return write_search(
        fitted.banks,
        fitted.config,
        fitted.encoder.shapes,
        precision,
        fitted.frame_roi,
        fitted.layout,
    )


def whole_model(fitted: Fitted) -> onnx.ModelProto:
    """Encoder and search as one ONNX model, fp32; inputs and outputs as the search's."""
    encoder = onnx.load_from_string(fitted.encoder.files["encoder.onnx"])
    if fitted.layout.tiles > 1:
        encoder = tiled_onnx(encoder, fitted.encoder.shapes, fitted.layout, fitted.inspected_tiles)
    search = search_model(fitted)
    search.ir_version = encoder.ir_version
    names = [(output.name, output.name) for output in encoder.graph.output]
    return onnx.compose.merge_models(encoder, search, names)
