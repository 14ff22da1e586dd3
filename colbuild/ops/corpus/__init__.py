"""corpus: text in many formats to packed token ids; see `docs/corpus.md`.

::

    source ─> its files ─> reader of the format ─> documents ─> limit, split ─> parts ─> token ids ─> train.bin, heldout.bin
                          (text jsonl csv parquet arrow mediawiki)                     (in batches: memory stays bounded)

`build` is the step. It is not imported here: a plan, which only peeks into texts, needs no tokenizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colbuild.ops.step_run import StepRun

__all__ = ["run"]


def run(step: StepRun) -> None:
    """Packs a corpus, as `colbuild.ops.corpus.build.run` does."""
    from colbuild.ops.corpus import build

    build.run(step)
