"""A plan as a file, and what changed since it was saved.

`colbuild plan -o` writes a plan, and `colbuild build --plan` refuses one that no longer says what a build would do. The room
may import `cost`, `changes`, `drawing`, `steps` and `shapes` of the planner, and `spec`.
"""
