"""The paths in a store, and the check that a folder is a store.

::

    .colbuild/
      format, format.copy           the version of this layout; the copy heals the mark
      project.json                  the id of the project that the store lies in; see `colbuild.store.collecting.projects`
      objects/<aa>/<digest>/        a published tree: files/…, tree.json (path, size, sha256 of each), stat.json (stamps)
      actions/<aa>/<key>.json       which tree an action made
      steps/<family>/<step>.json    the last action of each step; not part of any key
      outputs/<digest>.json         what was put at a place outside, to tell it from the user's files
      memo/<kind>/<aa>/<digest>.json  small values worth remembering
      partial/<key>/                checkpoints of an interrupted step; removed when its result is published
      roots/<digest>.json           which results a lock that was built here needs; they are never collected
      pins/<digest>.json            what a person keeps
      compiled/                     what compilers made, for steps still to come; may be removed at any time
      runs/ logs/ downloads/ tmp/ locks/ quarantine/
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from colbuild.bounds import MARK_BYTES
from colbuild.documents import MalformedError, read_regular
from colbuild.errors import BuildError
from colbuild.hashing import hash_bytes
from colbuild.store.durable_files import safe_name, sync_folder
from colbuild.store.left_over import is_left_over

FORMAT = 1
_MARKS = ("format", "format.copy")
_MARK = re.compile(r"colbuild\s+store\s+([1-9][0-9]{0,8})")
_FOLDERS = (
    "objects", "actions", "steps", "outputs", "memo", "runs", "logs", "downloads", "tmp", "locks", "quarantine",
    "partial", "roots", "pins", "compiled",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The paths of a store whose root is an absolute path.

    Each is joined in one go: a plan of thousands of steps asks for tens of thousands, and a join takes microseconds.
    """

    root: Path

    def folder(self, name: str) -> Path:
        """One of the store's folders, by its name."""
        return self.root / name

    def object(self, digest: str) -> Path:
        """The folder of a published tree."""
        return self.root / f"objects/{digest[:2]}/{digest}"

    def files(self, digest: str) -> Path:
        """The files of a published tree."""
        return self.root / f"objects/{digest[:2]}/{digest}/files"

    def tree(self, digest: str) -> Path:
        """The list of a published tree's files."""
        return self.root / f"objects/{digest[:2]}/{digest}/tree.json"

    def stamps(self, digest: str) -> Path:
        """The stamps that a published tree's files had when their content was known to be right."""
        return self.root / f"objects/{digest[:2]}/{digest}/stat.json"

    def set_aside(self, digest: str) -> list[Path]:
        """Returns the paths of damaged copies of a tree."""
        return sorted(self.folder("quarantine").glob(f"{digest}-*"))

    def action(self, key: str) -> Path:
        """The record of an action."""
        return self.root / f"actions/{key[:2]}/{key}.json"

    @property
    def translated(self) -> Path:
        """Says that the records of an older version are written down under the keys that they have now."""
        return self.root / "memo/keys.json"

    def step(self, family: str, step: str) -> Path:
        """The last action of a step."""
        return self.root / f"steps/{safe_name(family)}/{safe_name(step)}.json"

    def output(self, target: Path) -> Path:
        """Returns the path of the record of an output at `target`."""
        return self.root / "outputs" / f"{hash_bytes(os.fsencode(target))}.json"

    def memo(self, kind: str, digest: str) -> Path:
        """A remembered value."""
        return self.root / f"memo/{safe_name(kind)}/{digest[:2]}/{digest}.json"

    def partial(self, key: str) -> Path:
        """Returns the path of an interrupted action's checkpoints."""
        return self.root / "partial" / key

    def lock(self, name: str) -> Path:
        """A lock file."""
        return self.root / "locks" / f"{name}.lock"


def download_name(uri: str) -> str:
    """The name of a source's folder in `downloads/`."""
    return hash_bytes(uri.encode("utf-8", "surrogatepass"))


def check(layout: Layout) -> None:
    """Refuses a folder that is no store, or a store that this version cannot read; nothing is written.

    Raises:
        BuildError: The path is a file, a folder of something else, or a store of a newer version.
    """
    root = layout.root
    if not root.exists():
        return
    if not root.is_dir():
        raise BuildError(f"{root} cannot be the store: it is a file", hint="name a folder with --store")
    # Listed before the marks are looked for: what another process makes here meanwhile comes with a mark, or is not listed.
    entries = sorted(root.iterdir())
    version = _version(root)
    if version is None:
        foreign = [entry.name for entry in entries if not is_left_over(entry)]
        if foreign:
            message = f"{root} cannot be the store: it holds other files ({', '.join(foreign[:3])})"
            raise BuildError(message, hint="name an empty or a new folder with --store")
    elif version > FORMAT:
        message = f"the store {root} was written by a newer colbuild (format {version}; this one reads up to {FORMAT})"
        raise BuildError(message, hint="upgrade colbuild, or use another store with --store or COLBUILD_STORE")


def create(layout: Layout) -> None:
    """Makes what is missing of a store's folders and marks. Raises OSError."""
    root = layout.root
    root.mkdir(parents=True, exist_ok=True)
    mark(layout)
    for name in _FOLDERS:
        (root / name).mkdir(exist_ok=True)
    ignore = root / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="ascii")


def mark(layout: Layout) -> None:
    """Makes the marks of a store; one that is damaged is made again from the other. Raises OSError, BuildError."""
    root = layout.root
    version = _version(root) or FORMAT
    for name in _MARKS:
        if _marked(root / name) != version:
            draft = root / f"format-{uuid.uuid4().hex}"
            # On the disk before anything else is: a store whose marks are lost or empty is refused.
            with draft.open("w", encoding="ascii") as file:
                file.write(mark_text(version))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(root / name)
            sync_folder(root)


def _version(root: Path) -> int | None:
    """The version of the store at `root`, as its marks say, of two that differ the lower one; None where there is no mark.

    Raises:
        BuildError: There are marks, and none is sound.
    """
    # Looked for before they are read: a mark appears whole, so one that was there and is none is not the store's.
    there = any((root / name).exists() for name in _MARKS)
    versions = [version for name in _MARKS if (version := _marked(root / name)) is not None]
    if versions:
        return min(versions)
    if not there:
        return None
    message = f"{root / 'format'} was not written by colbuild, so {root} cannot be used as the store"
    raise BuildError(
        message,
        hint=f"if the folder is a store, write 'colbuild store {FORMAT}' into that file; else name another folder with --store",
    )


def _marked(path: Path) -> int | None:
    """The version that a mark names; None if it is missing or is no mark."""
    try:
        return read_mark(read_regular(path, MARK_BYTES).decode("ascii", "replace"))
    except (FileNotFoundError, IsADirectoryError, MalformedError):
        return None


def mark_text(version: int) -> str:
    """Returns the text of a store's mark, here or at a URL."""
    return f"colbuild store {version}\n"


def read_mark(text: str) -> int | None:
    """The version in a mark; None if the text is none."""
    found = _MARK.fullmatch(text.strip())
    return int(found[1]) if found else None
