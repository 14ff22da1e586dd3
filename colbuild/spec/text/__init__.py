"""YAML with positions, and problems that show their place: from a file's text to a tree, and from a model's errors to messages.

Every problem of a file is found and told at once.
It may import `colbuild.spec.model` and the root.
"""
