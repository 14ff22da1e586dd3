"""A student of another architecture or vocabulary, begun from its teacher's weights.

The parts of a block have one naming for all architectures. It may import `prefix` and `files`.
"""
