"""The size of a source of text, from sizes and the first bytes of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from colbuild.errors import SourceError
from colbuild.fetch.downloads import recorded
from colbuild.fetch.fetching import path_here
from colbuild.fetch.texts.raw_files import starts_with
from colbuild.spec.sources.formats import FORMATS

_PACKED: Final = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
    b"7z\xbc\xaf",
    *(row.magic[0] for row in FORMATS.values() if row.columns),
)
"""What compressed files begin with, and tables, whose columns may be."""
_PACKED_SUFFIXES: Final = frozenset((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z")).union(
    *(row.suffixes for row in FORMATS.values() if row.columns)
)


@dataclass(frozen=True)
class TextSize:
    """The size of a source of text.

    Attributes:
        bytes: Of its files.
        packed: Whether any of them may be compressed: then the text has more bytes, else at most so many.
    """

    bytes: int
    packed: bool


def text_size(uri: str, form: str, globs: Sequence[str], *, root: Path, downloads: Path) -> TextSize | None:
    """The size of a source that is on this machine, or was fetched before; None for any other.

    Args:
        uri: A source in the grammar of `colbuild.spec.sources.grammar`.
        form: What it holds.
        globs: Which of its files are meant; all if empty.
        root: The project's folder, which "./" stands for.
        downloads: Where fetched sources are kept.
    """
    raw = path_here(uri, root=root, downloads=downloads)
    if raw is None:
        record = recorded(downloads, uri)
        if record is None:
            return None
        packed = any(PurePosixPath(entry.path).suffix in _PACKED_SUFFIXES for entry in record.files)
        return TextSize(sum(entry.size for entry in record.files), packed)
    # A text that is not here needs none of this, and a plan of it is quicker.
    from colbuild.fetch.texts.choose import choose

    try:
        files = choose(raw, form, globs).files
        return TextSize(sum(path.stat().st_size for path in files), any(map(_is_packed, files)))
    except (OSError, SourceError):
        return None  # the reader of the text tells why


def _is_packed(path: Path) -> bool:
    return path.suffix in _PACKED_SUFFIXES or starts_with(path, 8).startswith(_PACKED)
