"""A family's build from beginning to end: its lock, room on the disk, steps, what lands in `out/`, and how its models stand.

Each file is one part of it; `building` puts them together. The room may import the executor, the history and every room below
`run`, and nothing that imports PyTorch.
"""
