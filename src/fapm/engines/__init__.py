"""Engines that run the graph: OpenVINO, ONNX Runtime or torch."""
