"""Documents with their size and their place in the split; the limit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_RANKS: Final = 1 << 53  # As many as a float tells apart.


@dataclass(frozen=True)
class Document:
    """A document that will be packed.

    Attributes:
        text: Its text, not blank.
        size: Its length in UTF-8 bytes.
        rank: In [0, 1), from the hash of its whole text: documents of rank below the held-out share are held out.
        limited: Whether the limit was reached with it; `text` may then be only its start.
    """

    text: str
    size: int
    rank: float
    limited: bool = False


def documents(texts: Iterable[str], limit: int | None) -> Iterator[Document]:
    """The documents that have text, up to `limit` bytes in all; the one that crosses the limit is cut there.

    A document's rank depends on its own text alone, even if it is cut: other documents or another limit never move it
    to the other side of the split, and equal documents are on the same side.
    """
    taken = 0
    for text in texts:
        if not text.strip():
            continue
        data = text.encode("utf-8")
        rank = (int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 11) / _RANKS
        if limit is not None and taken + len(data) >= limit:
            start = data[: limit - taken].decode("utf-8", "ignore")
            if start.strip():
                yield Document(start, len(start.encode("utf-8")), rank, limited=True)
            return
        taken += len(data)
        yield Document(text, len(data), rank)
