"""What the tests of the corpus step share."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from colbuild.errors import BuildError
from colbuild.progress import Progress
from colbuild.train.corpus.packing import open_corpus
from tests.helpers.steps import run_step
from tests.helpers.tiny import make_tiny_tokenizer


@functools.cache
def tokenizer_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="colbuild-tokenizer-"))
    make_tiny_tokenizer(folder)
    return folder


def build(
    raw: Path, output: Path, *, tokenizer: Path | None = None, report: list[Progress] | None = None, **params: Any
):
    """Runs the step; returns its output."""
    output.mkdir(parents=True)
    resolved = {"format": "text", "text": "text", "limit": None, "heldout": 0.0} | params
    inputs = {"raw": raw, "tokenizer": tokenizer or tokenizer_folder()}
    run_step("corpus", inputs, resolved, output, (report if report is not None else []).append)
    return output


def failure(raw: Path, output: Path, **params: Any) -> BuildError:
    """The error that the step must end with."""
    try:
        build(raw, output, **params)
    except BuildError as error:
        return error
    raise AssertionError("the step did not fail")


def packed_texts(folder: Path, split: str = "train", tokenizer: Path | None = None) -> list[str]:
    """The documents of a split, decoded again."""
    meta = json.loads((folder / "corpus.json").read_text())
    if not meta["splits"][split]["documents"]:
        return []
    corpus = open_corpus(folder, split)
    decoder = Tokenizer.from_file(str((tokenizer or tokenizer_folder()) / "tokenizer.json"))
    texts: list[list[int]] = [[]]
    for token in corpus.read(0, corpus.tokens).tolist():
        if token == corpus.separator:
            texts.append([])
        else:
            texts[-1].append(token)
    assert texts[-1] == [], "a split ends with a separator"
    return [decoder.decode(ids, skip_special_tokens=False) for ids in texts[:-1]]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def wiki_page(title: str, text: str, extra: str = "") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return f"<page><title>{title}</title>{extra}<revision><id>1</id><text>{escaped}</text></revision></page>\n"


WIKI_START = (
    '<mediawiki version="0.3"><siteinfo><namespaces><namespace key="0"/><namespace key="6">Datei</namespace>'
    '<namespace key="10">Vorlage</namespace></namespaces></siteinfo>\n'
)


def wiki(*pages: str) -> str:
    return WIKI_START + "".join(pages) + "</mediawiki>\n"
