"""The steps of a build, one module or package for each operation.

Each has `run(step, params)`: it reads the folders of its inputs and fills one folder. The parameters are declared in the
module of the same name in `plan/steps`. The room may import every room below `run`, and PyTorch.
"""
