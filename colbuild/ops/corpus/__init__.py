"""corpus: text in many formats to packed token ids; see `docs/corpus.md`.

::

    source ─> its files ─> reader of the format ─> documents ─> limit, split ─> parts ─> token ids ─> train.bin, heldout.bin
                          (text jsonl csv parquet arrow mediawiki)                     (in batches: memory stays bounded)
"""
