"""The losses between a student and a teacher of one vocabulary, computed a chunk of tokens at a time.

Each divergence stands once, in one table. It may import no other room of training.
"""
