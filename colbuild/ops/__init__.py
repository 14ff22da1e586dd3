"""The steps of a build, one module or package for each operation."""
