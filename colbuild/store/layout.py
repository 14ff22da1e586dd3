"""Where everything lies in a store, and the check that a folder is one.

::

    .colbuild/
      format                        the version of this layout
      objects/<aa>/<digest>/        a published tree: files/… and tree.json (path, size, sha256 of each file)
      actions/<aa>/<key>.json       which tree an action made
      steps/<family>/<step>.json    the last action of each step; not part of any key
      outputs/<digest>.json         what was put at a place outside, to tell it from the user's files
      memo/<kind>/<aa>/<digest>.json  small values worth remembering
      partial/<key>/                what an interrupted step goes on from; removed when its result is published
      roots/<digest>.json           which results a lock that was built here needs; they are never collected
      pins/<digest>.json            what a person keeps
      runs/ logs/ downloads/ tmp/ locks/ quarantine/
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from colbuild.errors import BuildError
from colbuild.store.files import safe_name, sync_folder

FORMAT = 1
_FOLDERS = (
    "objects", "actions", "steps", "outputs", "memo", "runs", "logs", "downloads", "tmp", "locks", "quarantine",
    "partial", "roots", "pins",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The paths of a store whose root is an absolute path."""

    root: Path

    def folder(self, name: str) -> Path:
        """One of the store's folders, by its name."""
        return self.root / name

    def object(self, digest: str) -> Path:
        """The folder of a published tree."""
        return self.root / "objects" / digest[:2] / digest

    def files(self, digest: str) -> Path:
        """The files of a published tree."""
        return self.object(digest) / "files"

    def tree(self, digest: str) -> Path:
        """The list of a published tree's files."""
        return self.object(digest) / "tree.json"

    def action(self, key: str) -> Path:
        """The record of an action."""
        return self.root / "actions" / key[:2] / f"{key}.json"

    def step(self, family: str, step: str) -> Path:
        """The last action of a step."""
        return self.root / "steps" / safe_name(family) / f"{safe_name(step)}.json"

    def output(self, target: Path) -> Path:
        """What was put at `target`."""
        return self.root / "outputs" / f"{hashlib.sha256(os.fsencode(target)).hexdigest()}.json"

    def memo(self, kind: str, digest: str) -> Path:
        """A remembered value."""
        return self.root / "memo" / safe_name(kind) / digest[:2] / f"{digest}.json"

    def partial(self, key: str) -> Path:
        """What an interrupted run of an action left to go on from."""
        return self.root / "partial" / key

    def lock(self, name: str) -> Path:
        """A lock file."""
        return self.root / "locks" / f"{name}.lock"


def check(layout: Layout) -> None:
    """Refuse a folder that is no store, or a store that this version cannot read; nothing is written.

    Raises:
        BuildError: The path is a file, a folder of something else, or a store of a newer version.
    """
    root = layout.root
    if not root.exists():
        return
    if not root.is_dir():
        raise BuildError(f"{root} cannot be the store: it is a file", hint="Name a folder with --store.")
    version = _version(root)
    if version is None:
        foreign = sorted(entry.name for entry in root.iterdir() if not _belongs(entry.name))
        if foreign:
            message = f"{root} cannot be the store: it holds other things ({', '.join(foreign[:3])})"
            raise BuildError(message, hint="Name an empty or a new folder with --store.")
    elif version > FORMAT:
        message = f"the store {root} was written by a newer colbuild (format {version}; this one reads up to {FORMAT})"
        raise BuildError(message, hint="Upgrade colbuild, or use another store with --store or COLBUILD_STORE.")


def create(layout: Layout) -> None:
    """Make what is missing of a store's folders and marks. Raises OSError."""
    root = layout.root
    root.mkdir(parents=True, exist_ok=True)
    if _version(root) is None:
        draft = root / f"format-{uuid.uuid4().hex}"
        # On the disk before anything else is: a store whose mark is lost or empty is refused.
        with draft.open("w", encoding="ascii") as file:
            file.write(f"colbuild store {FORMAT}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(root / "format")
        sync_folder(root)
    for name in _FOLDERS:
        (root / name).mkdir(exist_ok=True)
    ignore = root / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="ascii")


def _belongs(name: str) -> bool:
    """Whether a folder without a mark may hold this and become a store.

    The mark is made first, so the store's own folders do not count: a `tmp` without it is somebody's, and would be emptied.
    """
    return name in (".gitignore", "lost+found") or name.startswith("format-")


def _version(root: Path) -> int | None:
    """The version of the store at `root`; None where there is no mark."""
    path = root / "format"
    if not path.exists():
        return None
    words = path.read_text(encoding="ascii", errors="replace").split()
    if words[:2] != ["colbuild", "store"] or len(words) != 3 or not words[2].isdecimal():
        raise BuildError(f"{path} is not what colbuild wrote, so {root} cannot be used as the store")
    return int(words[2])
