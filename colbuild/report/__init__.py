"""How families, plans and packages are shown to people: graphs, tables for notebooks, and the screen.

Functions here take values of the rooms below and return text or pictures, or print on a console. The room may import every
room below it, to read their values; it decides and changes nothing.
"""
