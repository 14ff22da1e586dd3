"""Parts that several operations have in common: models that run, calibration text, training of a student, text that is written.

A module is here once two operations need it, and knows no step. The room may import every room below `ops`, and PyTorch. Only
`ops` imports it.
"""
