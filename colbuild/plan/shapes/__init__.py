"""Solves the sizes that a family asks for: every member's shape, the place of each DesNet, and the route through the anchors.

What cannot be is refused here, with its place in the spec and a mending. The room imports `arch` and `spec`, and no other
room of the planner.
"""
