"""Files of a project as one family: recipes and profiles are found, merged and resolved, and each value knows its origin.

Git revisions and JSON schemas are here too, as both read whole files.
It may import all other rooms of the spec, and the root.
"""
