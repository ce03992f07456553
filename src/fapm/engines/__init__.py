"""What runs the graph: OpenVINO, ONNX Runtime or torch."""
