"""A model as a package for a device: graph/ builds the ONNX graph, rounding/ its weights, package/ all that lies beside it.

`manifest.py` is what a package says of itself, and runtime/ runs a finished one with onnxruntime and without torch.
It may import the rooms of training and weights, the plan's sizes, and what is below; never a step or the command line.
"""
