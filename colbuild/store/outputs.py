"""Places published trees, and folders made of parts of several, outside the store.

Large files share the store's bytes: as clones of them where the file system has such (see `colbuild.store.links`), else as
hard links to its read-only files; everything else is copied. A folder is replaced as a whole by renaming. What colbuild did not
put there is never deleted: it is moved aside. What it did put there it knows by a note: names, digests, and the stamp of each
file as placed, so that a build with nothing to do reads no content. A hard link must also be the very file that is in the store
now: where a damaged one was set aside and built again, the older link is found to be another file, and replaced.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.errors import BuildError
from colbuild.hashing import TreeEntry, hash_bytes, hash_file, scan_tree, tree_digest
from colbuild.store.durable_files import checked, read_json, unchecked, write_json
from colbuild.store.layout import Layout
from colbuild.store.links import put
from colbuild.store.locks import NOT_ALLOWED, hold, remove
from colbuild.store.objects import entries_from_json
from colbuild.store.stamps import Stamp, Stamps, stamp_from_json, stamps_of


@dataclass(frozen=True)
class Placement:
    """The result of placing a tree.

    Attributes:
        changed: Whether it was not there already.
        kept: Where files of somebody else's that stood there lie now; None if there were none.
    """

    changed: bool
    kept: Path | None = None


@dataclass(frozen=True)
class Assembly:
    """Files of published trees that make a folder together.

    Attributes:
        entries: The files, sorted by path.
        trees: Path -> digest of the tree that the file is taken from.
    """

    entries: tuple[TreeEntry, ...]
    trees: Mapping[str, str]

    def stored(self, layout: Layout, path: str) -> Path:
        """Returns the path of a file in the store."""
        return layout.files(self.trees[path]) / path


@dataclass(frozen=True)
class Placed:
    """One file as it was put at its place.

    Attributes:
        entry: What it holds.
        tree: Digest of the published tree that it was taken from.
        stamp: Its stamp then; None where an older version noted none.
        linked: Whether it is a hard link to the store's file.
    """

    entry: TreeEntry
    tree: str
    stamp: Stamp | None
    linked: bool


Note = tuple[Placed, ...]


def is_placed(layout: Layout, files: Assembly, target: Path) -> bool:
    """Whether a folder holds some files, as far as its note and its files' stamps tell, and nothing is left to clear away.

    Nothing is written, so that a build with nothing to do works on a store that it may only read. `False` may also mean that
    only reading the contents can tell.
    """
    note = _read_note(layout, target)
    if note is None or _entries(note) != files.entries or any(_dead_drafts(layout, target)):
        return False
    found = _files_at(target, files.entries)
    return found is not None and all(
        placed.stamp == found[placed.entry.path]
        and (not placed.linked or _same_file(target / placed.entry.path, files.stored(layout, placed.entry.path)))
        for placed in note
    )


def place_files(layout: Layout, files: Assembly, target: Path) -> Placement:
    """Makes the folder `target` hold files of published trees, whose content the caller has checked, and nothing else.

    Raises:
        OSError: The disk refuses.
    """
    with hold(_lock(layout, target)):
        for draft in _dead_drafts(layout, target):
            remove(draft)
        note = _read_note(layout, target)
        if _holds(layout, target, files):
            # Put there by another build meanwhile, by one that died before it noted it, with a store that is gone, or
            # from one that may only be read.
            _write_note(layout, target, _described(layout, files, target))
            return Placement(changed=False)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft, old = _draft(layout, target), _draft(layout, target)
        try:
            for entry in files.entries:
                place = draft / entry.path
                place.parent.mkdir(parents=True, exist_ok=True)
                put(files.stored(layout, entry.path), place, entry.size)
            placed = _described(layout, files, draft)
            kept = _clear(layout, target, note, old)
            draft.rename(target)
        finally:
            remove(draft)
            remove(old)
        _write_note(layout, target, placed)
        return Placement(changed=True, kept=kept)


def _clear(layout: Layout, target: Path, note: Note | None, old: Path) -> Path | None:
    """Takes what stands at `target` away: to `old` what was placed from the store, anything else to where it is kept."""
    if not target.exists() and not target.is_symlink():
        return None
    if _is_in_store(layout, target) if note is None else _is_ours(layout, target, note):
        # A rename first: a build that dies while it removes a folder must not leave half of one at its place.
        target.rename(old)
        return None
    kept = target.with_name(f"{target.name}.kept-{uuid.uuid4().hex[:8]}")
    target.rename(kept)
    return kept


def _is_in_store(layout: Layout, target: Path) -> bool:
    """Returns whether the store has just this tree: of what came from a store that may only be read there is no note."""
    try:
        digest = tree_digest(scan_tree(target)) if target.is_dir() and not target.is_symlink() else None
    except (OSError, BuildError):
        return False
    return digest is not None and layout.object(digest).exists()


def _is_ours(layout: Layout, target: Path, note: Note) -> bool:
    """Returns whether nothing at `target` would be lost with it: each file is as noted, or is also kept in the store."""
    try:
        found = stamps_of(target) if target.is_dir() and not target.is_symlink() else {}
    except BuildError:
        return False
    if found.keys() != {placed.entry.path for placed in note}:
        return False
    # A link to a file that was damaged and set aside holds wrong bytes, and they are not the user's: they lie in quarantine.
    folders = {
        tree: [layout.files(tree), *(set_aside / "files" for set_aside in layout.set_aside(tree))]
        for tree in {placed.tree for placed in note}
    }
    return all(
        any(_same_file(target / placed.entry.path, folder / placed.entry.path) for folder in folders[placed.tree])
        or (placed.stamp == found[placed.entry.path] and not placed.linked)
        or (placed.entry.size == found[placed.entry.path][0] and _is(target, placed.entry))
        for placed in note
    )


def _holds(layout: Layout, target: Path, files: Assembly) -> bool:
    """Returns whether a folder has just these files, by content; what is linked to the store's own file need not be read."""
    found = _files_at(target, files.entries)
    if found is None or any(found[entry.path][0] != entry.size for entry in files.entries):
        return False
    return all(
        _same_file(target / entry.path, files.stored(layout, entry.path)) or _is(target, entry)
        for entry in files.entries
    )


def _is(root: Path, entry: TreeEntry) -> bool:
    return hash_file(root / entry.path) == entry.sha256


def _files_at(target: Path, entries: tuple[TreeEntry, ...]) -> Stamps | None:
    """The stamps of a folder's files; None if it is no folder or does not have just the files of these names."""
    if target.is_symlink() or not target.is_dir():
        return None
    try:
        found = stamps_of(target)
    except BuildError:
        return None
    return found if found.keys() == {entry.path for entry in entries} else None


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False


# -- drafts -----------------------------------------------------------------------------------------------------------


def _lock(layout: Layout, target: Path) -> Path:
    return layout.lock(f"output-{layout.output(target).stem}")


def _prefix(layout: Layout, target: Path) -> str:
    """How the names of this store's drafts for `target` begin; another store's may be in use."""
    return f".{target.name}.{hash_bytes(os.fsencode(layout.root))[:8]}-"


def _draft(layout: Layout, target: Path) -> Path:
    return target.with_name(_prefix(layout, target) + uuid.uuid4().hex)


def _dead_drafts(layout: Layout, target: Path) -> Iterator[Path]:
    """What builds that died left beside `target`; certainly so if the lock of the target is held."""
    prefix = _prefix(layout, target)
    try:
        with os.scandir(target.parent) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(prefix)]
    except FileNotFoundError:
        return
    for name in names:
        yield target.with_name(name)


# -- notes ------------------------------------------------------------------------------------------------------------


def _described(layout: Layout, files: Assembly, root: Path) -> Note:
    stamps = stamps_of(root)
    return tuple(
        Placed(
            entry,
            files.trees[entry.path],
            stamps[entry.path],
            _same_file(root / entry.path, files.stored(layout, entry.path)),
        )
        for entry in files.entries
    )


_BESIDE: Final = ("tree", "stamp", "linked")
"""Keys of a note's row beside those of the file itself."""


def _entries(note: Note) -> tuple[TreeEntry, ...]:
    return tuple(placed.entry for placed in note)


def _write_note(layout: Layout, target: Path, note: Note) -> None:
    rows = [
        asdict(placed.entry) | {"tree": placed.tree, "stamp": placed.stamp, "linked": placed.linked} for placed in note
    ]
    try:
        write_json(layout.folder("tmp"), layout.output(target), checked({"files": rows}))
    except OSError as error:
        # A store that may only be read: the next build compares the contents.
        if error.errno not in NOT_ALLOWED:
            raise


def _read_note(layout: Layout, target: Path) -> Note | None:
    """What was noted of `target`; None if nothing was, or the note is damaged. Older notes are lists without a check."""
    noted: Any = read_json(layout.output(target))
    rows = noted if isinstance(noted, list) else (unchecked(noted) or {}).get("files")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    entries = entries_from_json([{name: value for name, value in row.items() if name not in _BESIDE} for row in rows])
    if entries is None:
        return None
    # Older notes are of one tree, and do not name it.
    whole = tree_digest(entries)
    return tuple(
        Placed(entry, str(row.get("tree", whole)), stamp_from_json(row.get("stamp")), row.get("linked") is True)
        for entry, row in zip(entries, rows, strict=True)
    )
