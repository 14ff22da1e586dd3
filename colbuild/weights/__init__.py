"""Weights of nested models: checkpoints, importance, ordering, subsets, interpolation."""
