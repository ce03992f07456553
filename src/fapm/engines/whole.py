"""The whole detector as one ONNX model."""

from __future__ import annotations

import onnx
import onnx.compose

from fapm.engines.search import write_search
from fapm.fitted import Fitted


def whole_model(fitted: Fitted) -> onnx.ModelProto:
    """Encoder and search as one ONNX model, fp32; inputs and outputs as the search's."""
    encoder = onnx.load_from_string(fitted.encoder.files["encoder.onnx"])
    search = write_search(fitted.banks, fitted.config, fitted.encoder.shapes, roi=fitted.frame_roi)
    search.ir_version = encoder.ir_version
    names = [(output.name, output.name) for output in encoder.graph.output]
    return onnx.compose.merge_models(encoder, search, names)
