"""The kinds of steps, one file each: parameters, drawing, what they read, make and take; `operations.py` is the table of all.

A new kind of step is a file here and one of the same name in `ops/`. The room may import `operation`, `drawing.draft`,
`drawing.step`, `workload` and `shapes` of the planner, and `arch` and `spec`.
"""
