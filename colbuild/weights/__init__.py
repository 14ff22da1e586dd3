"""Weights of models whose smaller sizes lie inside the larger ones: files, subsets, mixtures, bridges, alignment.

Nothing here trains, and nothing runs a step. It may import `plan`, `arch` and what lies below.
"""
