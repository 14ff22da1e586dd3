"""Chosen files of a source: `files: train-*` beside a `source` that is a folder, a repository or part of an archive.

Inside colbuild a source and its choice of files are one text, such as `./wiki#files=train-*`: another choice is another
content, with a digest, a pin and a download of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

MARK: Final = "#files="
_BETWEEN: Final = ","


def with_files(source: str, globs: Sequence[str] | None) -> str:
    """A source with its choice of files, as one text; the source itself if it is meant as a whole."""
    return f"{source}{MARK}{_BETWEEN.join(globs)}" if globs else source


def split_files(source: str) -> tuple[str, tuple[str, ...]]:
    """The source that `with_files` was given, and its globs; no globs if all of it is meant."""
    plain, _, globs = source.partition(MARK)
    return plain, tuple(globs.split(_BETWEEN)) if globs else ()


def check_glob(text: str) -> str:
    """The glob itself, if it can choose files.

    Raises:
        ValueError: It cannot; the text after "; " says what to write.
    """
    if not text.strip() or text != text.strip():
        raise ValueError(f"'{text}' names no file; write a file's name, where * stands for any text: train-*")
    if _BETWEEN in text or any(ord(character) < 32 for character in text):
        raise ValueError(f"'{text}' has a ','; write a list: [train-*, extra-*]; in a name, ? stands for any character")
    if text.startswith(("/", "./", "~")) or "\\" in text or "://" in text or ".." in text.split("/"):
        raise ValueError(f"'{text}' is not a path inside the source; write its name there: data/train-*")
    return text


def chosen(names: Iterable[str], globs: Sequence[str]) -> list[str]:
    """The names that any glob matches, in their order; every name if there is no glob.

    A glob matches a file's whole path, the path of a folder around it, or, without a '/', one part of the path. As in the hub's
    client, `*` matches every character, '/' too.

    Args:
        names: Paths with '/' between their parts.
        globs: As in the spec.
    """
    return [name for name in names if not globs or any(_matches(name, glob) for glob in globs)]


def _matches(name: str, glob: str) -> bool:
    parts, glob = name.split("/"), glob.removesuffix("/")
    around = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(fnmatchcase(path, glob) for path in (around if "/" in glob else [*around, *parts]))


def unmatched(globs: Sequence[str], names: Sequence[str]) -> tuple[str, str]:
    """Message and hint where no file matches."""
    shown = ", ".join(sorted(names)[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"no file matches 'files: {', '.join(globs)}'", f"available files: {shown or 'none'}"


_SHOWN: Final = 8
