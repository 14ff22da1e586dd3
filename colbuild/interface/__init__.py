"""The Python interface: families, checkpoints, packages and stores as a notebook or a script uses them.

Its names are reached as `colbuild.<name>`; the table in `colbuild/__init__.py` says which module holds each of them. Modules
here may import every other room except `cli`, and import PyTorch only inside the functions that compute.
"""
