"""Looks for what makes a planned step fail, before anything is built: texts, tokenizers, checkpoints to start from.

A check reads what lies on this machine, and answers with problems at their places in the spec. It may import the planner's
rooms below it (`changes`, `cost`, `drawing`, `steps`, `shapes`), `fetch`, `arch` and `spec`.
"""
