"""Everything that the command line prints: tables, progress bars, errors, and the JSON forms of the same values.

Text from outside reaches a terminal through `printed` and `screen` alone, which show control characters instead of obeying
them. The room may import the rooms below `report`, and rich inside of what prints.
"""
