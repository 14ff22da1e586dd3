"""The bytes of each token of a tokenizer, and the ends of its tokens in a text.

Two tokenizers cut the same text differently; the bytes below are what they have in common::

    text      T h e   c a f é            "é" is two bytes
    one      |T h e|  c a f|. .|         ends at 3, 7, 9
    other    |T h|e   c a|f . .|         ends at 2, 6, 9       both end at 9
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from colbuild.arch.files.model_files import TOKENIZER
from colbuild.arch.files.tokenizer_file import load_tokenizer, unlimited
from colbuild.errors import BuildError

NOWHERE: Final = -1
"""The end of a token that does not end between two characters of the text as it was given."""

_FALLBACK: Final = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE: Final = "▁"
_SAMPLES: Final = (
    "The café at the corner, 12 345 km away: naïve?",
    "  two spaces\n\n\tand a tab ",
    "Größe – 東京 🙂 ñ",
)
"""What every tokenizer must be able to spell: accents, spaces at both ends, lines, and characters that few of them know."""


@dataclass(frozen=True, eq=False)
class Spelling:
    """A tokenizer as a table of bytes.

    Attributes:
        tokenizer: From the `tokenizers` library.
        spelled: For each id what it spells; None for an id that is no token, and for special tokens, which spell nothing.
        special: Content of each special token -> its id.
        prefixed: Whether a space that the text does not have is put before its first token.
    """

    tokenizer: Tokenizer
    spelled: tuple[bytes | None, ...]
    special: Mapping[str, int]
    prefixed: bool

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each id; 0 where nothing is spelled."""
        return np.asarray([len(token or b"") for token in self.spelled], dtype=np.int64)

    @cached_property
    def by_bytes(self) -> dict[bytes, int]:
        """Spelled bytes -> the lowest id with this spelling."""
        found: dict[bytes, int] = {}
        for index, token in enumerate(self.spelled):
            if token:
                found.setdefault(token, index)
        return found

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token."""
        return int(self.lengths.max(initial=0))

    def spell(self, ids: Iterable[int]) -> bytes:
        """The bytes of some tokens."""
        return b"".join(self.spelled[index] or b"" for index in ids)

    def prefix(self, text: bytes) -> int | None:
        """The longest token that a text begins with; None if there is none."""
        for length in range(min(len(text), self.longest), 0, -1):
            found = self.by_bytes.get(text[:length])
            if found is not None:
                return found
        return None

    def cut(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """A text's tokens, and the byte of the text at which each ends.

        Where the tokenizer normalises the text, ends are those of the characters as they were given; a token that ends
        within one of these ends `NOWHERE`.
        """
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ids = np.asarray(encoding.ids, dtype=np.int64)
        ends = np.cumsum(self.lengths[ids]) if len(ids) else np.zeros(0, dtype=np.int64)
        found = self.spell(encoding.ids)
        if found == text.encode():
            return ids, ends
        if self.prefixed and found == b" " + text.encode():
            return ids, ends - 1
        return ids, _ends_by_character(text, encoding)


def read_spelling(folder: Path) -> Spelling:
    """Reads the tokenizer of a model folder.

    Raises:
        BuildError: There is none, it cannot be read, or it cannot spell `_SAMPLES`.
    """
    path = folder / TOKENIZER
    return spelling_of(load_tokenizer(path, hint="name a folder that holds a tokenizer.json"), str(path))


def spelling_of(tokenizer: Tokenizer, called: str = "the tokenizer") -> Spelling:
    """A tokenizer as a table of bytes.

    Raises:
        BuildError: It cannot spell one of `_SAMPLES`, which the message names.
    """
    unlimited(tokenizer)
    facts = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    added = {token["id"]: token for token in facts.get("added_tokens") or ()}
    spell = _byte_level if _mentions(facts, "ByteLevel") else _with_spaces
    spelled: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
    for content, index in vocabulary.items():
        if index not in added:
            spelled[index] = spell(content)
        elif not added[index]["special"]:
            spelled[index] = content.encode()
    special = {token["content"]: index for index, token in added.items() if token["special"]}
    prefixed = b"".join(spelled[index] or b"" for index in tokenizer.encode("a", add_special_tokens=False).ids) == b" a"
    found = Spelling(tokenizer, tuple(spelled), special, prefixed)
    for sample in _SAMPLES:
        check_round_trip(found, sample, called)
    return found


def check_round_trip(spelling: Spelling, text: str, called: str) -> None:
    """Raises BuildError if a text does not come out of a tokenizer as it went in, but for what the tokenizer normalises."""
    encoding = spelling.tokenizer.encode(text, add_special_tokens=False)
    normalizer = spelling.tokenizer.normalizer
    wanted = {text.encode()}
    if normalizer is not None:
        # A normalizer of this kind writes spaces as it stores them.
        wanted.add(normalizer.normalize_str(text).replace(_SPACE, " ").encode())
    found = spelling.spell(encoding.ids)
    if found in wanted or (spelling.prefixed and found in {b" " + one for one in wanted}):
        return
    raise BuildError(
        f"{called} cannot round-trip a text: {text!r} comes back as {found.decode(errors='replace')!r}",
        hint="choose a tokenizer that keeps every byte, such as a byte-level BPE: tokenizer: {train: 16k}",
    )


def characters(text: bytes, *, begins: bool, ends: bool) -> tuple[int, int]:
    """The stretch of a text's bytes that is whole characters.

    Args:
        text: Bytes cut out of a longer text, perhaps within a character.
        begins: Whether it begins where a character does.
        ends: Whether it ends where one does.
    """
    start, stop = 0, len(text)
    while not begins and start < stop and text[start] & 0xC0 == 0x80:
        start += 1
    if not ends:
        for back in range(1, min(4, stop - start) + 1):
            lead = text[stop - back]
            if lead & 0xC0 == 0x80:
                continue
            needs = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            stop = stop if back >= needs else stop - back
            break
    return start, stop


def _ends_by_character(text: str, encoding: Encoding) -> NDArray[np.int64]:
    """The byte at which each token ends, by the characters of the given text that it stands for."""
    sizes = np.cumsum([0, *(len(character.encode()) for character in text)])
    ends = []
    spans: Sequence[tuple[int, int]] = encoding.offsets
    for place, (_, stop) in enumerate(spans):
        # The next token begins within the character that this one ends in, or beyond one that is part of it.
        last = place + 1 == len(spans)
        certain = last or spans[place + 1][0] == stop
        ends.append(int(sizes[-1 if last else stop]) if certain else NOWHERE)
    return np.asarray(ends, dtype=np.int64)


def _mentions(value: Any, kind: str) -> bool:
    """Returns whether a part of a tokenizer's description is of a type."""
    if isinstance(value, dict):
        parts = (value.get(key) for key in ("pre_tokenizer", "decoder", "pretokenizers", "decoders"))
        return value.get("type") == kind or any(_mentions(part, kind) for part in parts)
    return isinstance(value, list) and any(_mentions(part, kind) for part in value)


def _byte_characters() -> dict[str, int]:
    """The letters that byte-level tokenizers write bytes as: printable ones as themselves, the others from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES: Final = _byte_characters()


def _byte_level(content: str) -> bytes | None:
    if all(character in _BYTES for character in content):
        return bytes(_BYTES[character] for character in content)
    return content.encode()


def _with_spaces(content: str) -> bytes:
    byte = _FALLBACK.fullmatch(content)
    return bytes([int(byte[1], 16)]) if byte else content.replace(_SPACE, " ").encode()
