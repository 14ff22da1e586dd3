"""corpus: text in many formats to packed token ids; see `docs/corpus.md`.

::

    source ─> its files ─> reader of the format ─> documents ─> limit, split ─> parts ─> token ids ─> train.bin, heldout.bin
                          (text jsonl csv parquet arrow mediawiki)                     (in batches: memory stays bounded)

`build` is the step. It is not imported here: a plan, which only peeks into texts, needs no tokenizer.
The files here may import `colbuild.fetch.texts`, `colbuild.train.corpus` and what is below; of other steps nothing.
"""
