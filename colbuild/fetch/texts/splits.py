"""Detects several splits of a dataset in one folder by file names, so that test text is not trained on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from colbuild.errors import SourceError
from colbuild.spec.sources.choice import chosen
from colbuild.spec.sources.formats import suffix_of

_WORDS: Final[Mapping[str, str]] = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""The words by which the hub's tools tell splits."""

_NUMBERING: Final = re.compile(r"\d+|of|")


def check_splits(raw: Path, names: Sequence[str], folders: Mapping[str, str]) -> None:
    """Refuses a folder that holds several splits.

    Args:
        raw: The folder.
        names: The files that would be read, by their paths in it.
        folders: Folder -> the split that it is known to hold.

    Raises:
        SourceError: Several splits would be read as one text.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        split = _split_of(name, folders)
        if split is not None:
            found[split].append(name)
    if len(found) < 2:
        return
    first = "train" if "train" in found else sorted(found)[0]
    counts = [f"{split} ({len(files)} file{'s' * (len(files) > 1)})" for split, files in sorted(found.items())]
    raise SourceError(
        f"{raw} holds several splits: {', '.join(counts)}",
        hint=f"choose one: 'files: \"{_glob(names, found[first])}\"'; 'files: \"*\"' reads all of them",
        key="files",
    )


def _split_of(name: str, folders: Mapping[str, str]) -> str | None:
    """The split that a file belongs to, by the folders around it, the outermost first, or by its own name."""
    path = PurePosixPath(name)
    around = [parent.as_posix() for parent in reversed(path.parents) if parent.name]
    known = next((folders[folder] for folder in around if folder in folders), None)
    if known is not None:
        return known
    stem = path.name.removesuffix(path.suffix)
    stem = stem.removesuffix(suffix_of(path.name)) or stem
    return next((split for part in (*path.parts[:-1], stem) if (split := _split_in(part)) is not None), None)


def _split_in(part: str) -> str | None:
    """The split that a name begins or ends with, numbering left out: `train-00000-of-00002`, `wiki_test`."""
    words = [word for word in re.split(r"[^a-z0-9]+", part.lower()) if not _NUMBERING.fullmatch(word)]
    return next((_WORDS[word] for word in (words[:1] + words[-1:]) if word in _WORDS), None)


def _glob(names: Sequence[str], files: Sequence[str]) -> str:
    """A glob that matches these files alone; the first file if no short one does."""
    parts = PurePosixPath(files[0]).parts
    words = [re.match(r"[A-Za-z]+", parts[-1]), *(re.search(f"(?i){word}", parts[-1]) for word in _WORDS)]
    tries = [f"{folder}/*" for folder in ("/".join(parts[:end]) for end in range(1, len(parts)))]
    tries += [pattern for word in words if word for pattern in (f"{word[0]}-*", f"{word[0]}*", f"*{word[0]}*")]
    return next((glob for glob in tries if chosen(names, [glob]) == list(files)), files[0])
