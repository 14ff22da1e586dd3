"""Loads a tokenizer from outside in a separate process, before this process uses it.

The library panics or aborts on some damaged files, and a file may hold regular expressions that take for ever, or replacements
that double a text again and again. A tokenizer that passes here cuts texts of many kinds within bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from colbuild.bounds import TOKENIZER_BYTES_A_SECOND, TOKENIZER_MEMORY, TOKENIZER_SECONDS, TOKENIZER_TIMES
from colbuild.confined import Bounds, Task, confined

_RUN: Final = 256
_LETTERS: Final = ("a", "A", "1", " ", "\n", ".", "_", "e ", "aA", "a1", "a.", "'s", "é", "字", "🙂", "\u0301", "\r\n")
_SAMPLES: Final = (
    "The weather in Zürich is fine today, 1999!\n\n\tdef f(x): return x + 1  # 東京 \u202e🙂",
    *(letters * _RUN + end for letters in _LETTERS for end in ("", "!", "b", "\x00")),
)
"""Expressions that are slow are so on runs of letters of one kind that end with another kind."""


def try_tokenizer(path: Path, called: str | None = None) -> None:
    """Loads a tokenizer.json in a process of its own and lets it cut some texts.

    Args:
        path: The file; one that is missing is for whoever loads it to tell.
        called: What the file is called in messages.

    Raises:
        BuildError: It crashes the library, takes too long or needs too much memory.
    """
    if not path.is_file():
        return
    size = path.stat().st_size
    bounds = Bounds(TOKENIZER_SECONDS + size / TOKENIZER_BYTES_A_SECOND, TOKENIZER_MEMORY + TOKENIZER_TIMES * size)
    task = Task(__name__, "cut", {"path": str(path)}, f"the tokenizer {called or path}", "get the model again")
    for _ in confined(task, bounds):
        pass


def cut(beat: Callable[[], None], path: str) -> Iterator[None]:
    """The work of that process; what the library raises in words is told where the tokenizer is loaded."""
    # A panic is no Exception, and ends this.
    with suppress(Exception):
        tokenizer = Tokenizer.from_file(path)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        beat()
        for text in _SAMPLES:
            with suppress(Exception):
                tokenizer.decode(tokenizer.encode(text, add_special_tokens=True).ids)
        beat()
        tokenizer.to_str()
    yield None
