"""Estimates what steps cost: time, disk and memory, from earlier runs or from this machine's speed.

What a kind of step computes is told by `steps`; here it is summed up, compared with this machine, and laid on a time line. The
room may import `changes`, `drawing`, `steps`, `workload` and `shapes` of the planner, and `store`, `arch` and `spec`.
"""
