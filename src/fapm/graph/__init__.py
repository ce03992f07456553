"""The computation behind the encoder: in torch, as the reference, and as ONNX for the engines."""
