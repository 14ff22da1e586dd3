"""Carrying out a plan: the executor, its events and records, and what lands in `out/`."""
