"""The ONNX graph of a decoder, without weights at first, and the operators that each operator set and runtime knows.

Files are written here, and graphs from outside are scanned before they are run.
It may import onnx, torch and what is below `colbuild.export`; of the other rooms here the manifest alone.
"""
