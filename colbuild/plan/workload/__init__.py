"""How much models compute and keep: arithmetic, activations and memory, from shapes and recipes alone.

The kinds of steps (`colbuild.plan.steps`) sum these figures up, and trainings size their micro-batches by them.
This room may import `spec`, `arch` and `plan.shapes`.
"""
