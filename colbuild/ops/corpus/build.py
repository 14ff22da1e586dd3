"""The corpus step."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from colbuild.errors import BuildError
from colbuild.fetch.texts.choose import Chosen, choose
from colbuild.fetch.texts.readers import reader_of
from colbuild.fetch.texts.reading import Reading
from colbuild.fetch.texts.text_documents import documents
from colbuild.ops.corpus.split_writer import SplitWriter, fill_empty
from colbuild.ops.corpus.tokens import Vocabulary, load_vocabulary, tokenise
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.corpus import META, CorpusParams
from colbuild.progress import Progress
from colbuild.spec.sources.formats import FORMATS
from colbuild.train.corpus.packing import FORMAT, SplitCounts
from colbuild.train.corpus.text_beginning import stored


def run(step: StepRun, params: CorpusParams) -> None:
    """Packs a corpus.

    Inputs: `raw` (a file or folder), `tokenizer` (a folder with tokenizer.json). Params: `format`, a key of `FORMATS` or
    "auto"; `files`, globs of the files that are meant, if not all are; `text`, the field that holds the text; `limit`, bytes of
    text or None; `heldout`, the share of documents held out. The output is what `colbuild.train.corpus.packing` reads.

    Raises:
        BuildError: There is no text, it cannot be read as the format, or there is too little to hold some out.
    """
    chosen = choose(step.inputs["raw"], params.format, params.files)
    limit = params.limit
    vocabulary = load_vocabulary(step.inputs["tokenizer"])
    step.report(Progress(0, limit or 0, "bytes", "reading"))
    limited = False
    with (
        tempfile.TemporaryDirectory(dir=step.output, prefix=".scratch-") as scratch,
        SplitWriter(step.output, "train", vocabulary) as train,
        SplitWriter(step.output, "heldout", vocabulary) as heldout,
        # Closed at the limit, so that files and processes of the reader do not wait for the garbage collector.
        closing(reader_of(chosen.format)(Reading(chosen.files, params.text, Path(scratch)))) as texts,
    ):
        for batch in tokenise(documents(_unless_stopped(texts, step), limit), vocabulary):
            for document in batch:
                (heldout if document.document.rank < params.heldout else train).add(document)
                limited = limited or document.document.limited
            step.reached(Progress(train.counts.bytes + heldout.counts.bytes, limit or 0, "bytes", "tokenising"))
    counts = (train.counts, heldout.counts)
    added = 1 + len(stored(vocabulary.begin, vocabulary.separator))
    if sum(split.tokens - added * split.documents for split in counts) == 0:
        raise _empty(step, params.limit, chosen)
    if params.heldout > 0.0:
        counts = fill_empty(train, heldout)
        if not all(split.documents for split in counts):
            raise _nothing_held_out(params.heldout)
    done = counts[0].bytes + counts[1].bytes
    _write_meta(step.output, vocabulary, dict(zip(("train", "heldout"), counts, strict=True)), limited=limited)
    step.report(Progress(done, done, "bytes", "tokenising"))


def _unless_stopped(texts: Iterable[str], step: StepRun) -> Iterator[str]:
    """Texts, until the step shall stop: many without a word may come between two that are packed."""
    for text in texts:
        step.check()
        yield text


def _write_meta(folder: Path, vocabulary: Vocabulary, splits: dict[str, SplitCounts], *, limited: bool) -> None:
    meta: dict[str, Any] = {
        "format": FORMAT,
        "dtype": vocabulary.dtype,
        "separator": vocabulary.separator,
        "vocabulary": vocabulary.size,
        "limit_reached": limited,
        "splits": {name: asdict(counts) for name, counts in splits.items()},
    }
    if vocabulary.begin:
        meta["begin"] = list(vocabulary.begin)
    (folder / META).write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _empty(step: StepRun, limit: int | None, chosen: Chosen) -> BuildError:
    form, files = chosen.format, chosen.files
    size = sum(path.stat().st_size for path in files)
    which = f"{files[0]}" if len(files) == 1 else f"{len(files)} files in {step.inputs['raw']}"
    return BuildError(
        f"the corpus is empty: no text in {which} ({size:,} bytes, read as {form}, "
        f"{'no limit' if limit is None else f'limit {limit:,} bytes'})",
        hint=f"check the data section: 'source', 'format' and 'limit'; {FORMATS[form].check}",
    )


def _nothing_held_out(heldout: float) -> BuildError:
    return BuildError(
        f"the corpus is one document, so no document can be held out (heldout: {heldout})",
        hint="give more documents (in plain text they are separated by two blank lines), "
        "or write 'heldout: 0' and, to measure on the same text, 'split: all'",
    )
