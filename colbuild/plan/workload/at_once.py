"""The sizes of chunks and micro-batches that steps use, and that estimates count on.

They decide results, so the table of the operations' sources counts this file (`tests/ops/epochs.py`).
"""

from __future__ import annotations

from typing import Final

MICRO_TOKENS: Final = 2048
"""Tokens that pass through teacher and student at once on a CPU, where more are no faster and only take memory."""

WINDOW: Final = 512
"""Tokens that models are measured and calibrated on at once."""

CHUNK_TOKENS: Final = 256
"""Tokens whose logits [tokens, vocabulary] exist at once. For 49k tokens of vocabulary 512 need 0.7 GiB more and are no
faster; 128 are 7% slower."""

PRODUCT_BYTES: Final = 2048
"""Bytes of the logits of one token of the vocabulary that a head's product makes at once: 1,024 tokens in bf16, 512 in fp32. A
head is packed anew for each product: 1,024 tokens take half the time of four times 256."""

CACHED_LOGITS: Final = 1 << 19
"""Logits in fp32 that a CPU passes over again and again: few enough to stay in its cache."""

QUERIES: Final = 128
"""Queries that attention takes at once; of 64, 128 and 256 the fastest on a CPU."""

WRITTEN_AT_ONCE: Final = 64
"""Texts that a student writes at once; more are faster, and need memory for their keys and values."""

LONGEST_PROMPT: Final = 192
"""Tokens of the longest prompt that a package is compared on."""

RANKED_TOKENS: Final = 512
"""Calibration tokens on which a model's layers are ranked, at most: four times as many rank those of SmolLM2-135M no better."""

RANKED_WINDOW: Final = 128
"""Tokens of each text for that; of four short texts rather than of one."""

SCORINGS: Final = 6
"""How many layers are removed on trial for each that is removed, at most; before the first removal each layer is."""
