"""Reads what describes a model on the disk: configurations, headers of safetensors and GGUF files, tokenizers' files.

Nothing here reads a weight, and no file is trusted: lengths and depths have bounds. The room may import the rest of `arch`,
and the modules at the root.
"""
