"""Draws the graph of steps that builds a family, keys each step, and restricts the graph to targets.

`step.py` and `draft.py` are what kinds of steps draw with, and lie below them; `build_graph.py` calls the kinds in the order of
a family. The room may import `steps`, `operation`, `workload` and `shapes` of the planner, and `spec`, `store` and `arch`.
"""
