"""Hostile and damaged inputs for every kind of file that colbuild reads; `python -m tests.fuzz --minutes 30`."""
