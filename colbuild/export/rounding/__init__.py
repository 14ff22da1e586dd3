"""Weights in few bits: how blocks are rounded, what each matrix costs by measurements, and how a graph stores the codes.

Which precisions there are is in `colbuild.spec.model.precision`.
It may import `colbuild.export.graph`, the plan's sizes and what is below.
"""
