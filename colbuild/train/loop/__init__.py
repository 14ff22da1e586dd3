"""The training loop: a student, its teacher, optimiser, micro-batches, devices, and a state that a killed run resumes from.

It knows neither where text comes from nor who reads the figures. It may import `across`, `losses` and `corpus`.
"""
