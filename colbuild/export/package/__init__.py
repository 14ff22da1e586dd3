"""The folder of a package: its files, manifest and card, its comparison with PyTorch, its limits, and its verification.

What works without torch (manifest, verify, pack, push) imports none.
It may import all other rooms of `colbuild.export` and what is below.
"""
