"""How much may arrive from outside: bytes, seconds, depths and counts, each told in the message of the refusal.

A bound is far above whatever honest files need, and far below what a machine has. It is no setting: a file beyond one of
these is damaged, or made to harm.
"""

from __future__ import annotations

from typing import Final

JSON_BYTES: Final = 256_000_000
"""Of a JSON file: the largest honest ones are tokenizers of some 35 MB."""

PACKED_FILES: Final = 10_000
"""Of files in a packed package, or in its manifest: an honest one has some ten."""
PACKED_RATIO: Final = 200
"""Of what a packed file unpacks to, by its own bytes; weights hardly shrink, a tokenizer to a fifth."""
PACKED_SPARE: Final = 64_000_000
"""Bytes that a packed file may unpack to beyond that ratio."""
PACKED_WINDOW: Final = 1 << 27
"""Bytes of a decompressor's window: as much as zstandard takes by itself."""
MANIFEST_BYTES: Final = 16_000_000
"""Of a package's manifest: an honest one has some 10 kB."""
