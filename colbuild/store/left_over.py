"""Recognises colbuild's own files in a folder without a mark, which may become a store again.

A store that is removed while a build runs leaves such: the build's logs appear once more, without the mark. In a project whose
store lies elsewhere the project's id does. The store's folders do not count by their names alone: a `tmp` without a mark may
hold other files, and a store's `tmp` is emptied.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_HEX: Final = "[0-9a-f]{64}"
_SCRATCH: Final = r"[0-9a-f]{32}"
_RUN: Final = r"[0-9]{8}T[0-9]{6}-[0-9]{6}"

_OWN: Final = re.compile(
    "|".join(
        (
            r"\.gitignore",
            r"project\.json",
            r"format-.*",
            rf"{_SCRATCH}\.file",
            rf"tmp/{_SCRATCH}(\.lock|\.file|/.*)",
            rf"runs/{_RUN}\.jsonl",
            rf"logs/{_RUN}/.*",
            rf"locks/(gc|roots|((object|output|root)-)?{_HEX})\.lock",
            rf"objects/[0-9a-f]{{2}}/{_HEX}/(files/.*|tree\.json|stat\.json)",
            rf"(actions|memo/[^/]+)/[0-9a-f]{{2}}/{_HEX}\.json",
            r"steps/[^/]+/[a-z]+ [^/]+\.json",
            rf"(outputs|roots|pins)/{_HEX}\.json",
            rf"partial/{_HEX}/.*",
            rf"quarantine/(download-)?{_HEX}-[0-9a-f]{{8}}/.*",
            rf"downloads/({_HEX}(\.lock|/.*)|hashes/[0-9a-f]{{2}}/({_HEX}\.json|{_SCRATCH}\.file))",
        )
    ),
    re.DOTALL,
)
"""The paths of files that colbuild writes below a store, and that nobody else gives such names. What compilers keep
has names of theirs; it does not count, as it is removed as a whole."""


def is_left_over(entry: Path) -> bool:
    """Returns whether an entry of a folder that is to become a store is colbuild's own, or holds no file at all."""
    if entry.name == "lost+found":
        return True
    if entry.is_symlink() or not entry.is_dir():
        return _is_own(entry, entry.parent)
    for folder, folders, names in os.walk(entry, onerror=_refuse):
        if not all(_is_own(Path(folder, name), entry.parent) for name in names):
            return False
        if any(Path(folder, name).is_symlink() for name in folders):
            return False
    return True


def _is_own(path: Path, root: Path) -> bool:
    return not path.is_symlink() and _OWN.fullmatch(path.relative_to(root).as_posix()) is not None


def _refuse(error: OSError) -> None:
    raise error
