"""How much may arrive from outside: bytes, seconds, depths and counts, each told in the message of the refusal.

A bound is far above whatever honest files need, and far below what a machine has. It is no setting: a file beyond one of
these is damaged, or made to harm.
"""

from __future__ import annotations

from typing import Final

JSON_BYTES: Final = 256_000_000
"""Of a JSON file: the largest honest ones are tokenizers of some 35 MB."""
