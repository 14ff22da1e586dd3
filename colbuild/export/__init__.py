"""A model as an ONNX package: graph, quantisation, parity, manifest; and running packages."""
