"""Gets the bytes behind a source's URI and knows their digest; a reader for each scheme, and the record of what was fetched.

A plan looks here without a network, and a step fetches what it reads.
It may import the store, the spec, the architectures' files and the root; never torch, transformers or onnx.
"""
