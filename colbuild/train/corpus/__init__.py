"""Packed text: windows of token ids in a fixed order, where a text begins, and a teacher's answers kept beside them.

A batch depends on its number and the seed alone. It may import `losses`.
"""
