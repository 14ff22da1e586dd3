"""A public checkpoint in the coordinates of another one, so that the two can be mixed.

The function that the checkpoint computes stays the same. It may import `mixing`, `prefix` and `files`.
"""
