"""Sources as the user writes them: the table of schemes, the parsers of their texts, and what people write by mistake.

Only texts are looked at; `colbuild.fetch` reads what they name.
It may import the root alone.
"""
