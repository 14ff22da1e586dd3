"""A model with its axes sorted by importance, so that each smaller model is a prefix of it: importance, order, subset.

Every function works on named axes, for all architectures alike. It may import `files`.
"""
