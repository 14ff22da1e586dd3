"""The losses between a student and a teacher of two vocabularies: text aligned byte by byte, and a table of losses over it.

A loss sees spans of both texts, never a tokenizer. It may import `corpus` and `losses`.
"""
