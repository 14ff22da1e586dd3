"""Builds: plans are carried out here, step by step, in processes of their own.

`building` carries out a whole plan, `executor` runs its steps side by side, `process` runs one of them, `history` keeps the
record, `sharing` looks after the store. The room may import every room below it; only the process of a step imports PyTorch.
"""
