"""corpus: text in many formats to packed token ids; see `docs/corpus.md`.

::

    files ─> reader of the format ─> documents ─> limit, split ─> parts ─> token ids ─> train.bin, heldout.bin
            (text jsonl parquet mediawiki)                               (in batches, so memory stays bounded)
"""

from colbuild.ops.corpus.build import run

__all__ = ["run"]
