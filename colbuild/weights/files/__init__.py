"""Model folders: checkpoints, and safetensors files that are read and written by position.

What is written is the same bytes on every machine. It may import no other room of weights.
"""
