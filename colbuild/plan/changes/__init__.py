"""Compares the steps of a family with what the store, an earlier revision or another family has, and says why they differ.

All comparisons of trees are made by `differ.py`. The room may import `drawing`, `steps` and `shapes` of the planner, `fetch`,
`store` and `spec`.
"""
