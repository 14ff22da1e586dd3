"""The pydantic models of what the user writes: families, recipes, device profiles, and the tables that their values come from.

Each model checks its own values and explains each key for editors.
They may import `colbuild.spec.sources`, the architectures and the root.
"""
