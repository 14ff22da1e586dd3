"""The store: results, found by their keys.

Reading never writes, so that `plan` and `status` work on a store that belongs to another user or does not exist yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from colbuild.errors import BuildError
from colbuild.store import layout as layouts
from colbuild.store.assembling import Choose, all_files, assemble
from colbuild.store.checking import Checking
from colbuild.store.durable_files import (
    NotWritableError,
    checksum,
    read_json,
    storage_errors,
    write_json,
    write_json_durably,
)
from colbuild.store.layout import Layout
from colbuild.store.leases import renew_while_shared, shared
from colbuild.store.locks import hold, remove, remove_stale, scratch_path
from colbuild.store.objects import Tree, publish, read_tree
from colbuild.store.older_records import OlderRecords
from colbuild.store.outputs import Placement
from colbuild.store.records import ActionRecord, record_from_json, record_to_json

Former = Callable[["Store"], Mapping[str, ActionRecord]]
"""Reads the records that an older version of colbuild wrote, by the keys that they have now."""


@dataclass(frozen=True)
class Store:
    """A store at an absolute path; made on the first write.

    Attributes:
        layout: Where everything lies in it.
        former: Reads the records of an older version; None where nobody asks for them.
    """

    layout: Layout
    former: Former | None = None
    _checking: Checking = field(init=False, repr=False, compare=False)
    _older: OlderRecords | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_checking", Checking(self.layout))
        older = None if self.former is None else OlderRecords(self.layout, partial(self.former, self))
        object.__setattr__(self, "_older", older)

    @property
    def root(self) -> Path:
        """The store's folder."""
        return self.layout.root

    @property
    def downloads(self) -> Path:
        """The folder of fetched sources."""
        return self.layout.folder("downloads")

    # -- reading ------------------------------------------------------------------------------------------------------

    def lookup(self, key: str) -> ActionRecord | None:
        """The record of an action whose result is here and whole, as far as the stamps of its files tell.

        Only a file with another stamp than noted is read; see `colbuild.store.stamps`.
        """
        record = record_from_json(read_json(self.layout.action(key)))
        if record is None and self._older is not None:
            record = self._older.records().get(key)
        if record is None or record.key != key or self._checking.look(record.output).damage is not None:
            return None
        return record

    def claim(self, key: str) -> ActionRecord | None:
        """Like `lookup`, and what is found stays for at least 23 hours from now, unless the store may only be read."""
        with shared(self.layout):
            record = self.lookup(key)
            return record if record is not None and renew_while_shared(self.layout, record.output) else None

    def last(self, family: str, step: str) -> ActionRecord | None:
        """Returns the record of a step's last action; None if there is none."""
        return record_from_json(read_json(self.layout.step(family, step)))

    def records(self) -> Iterator[ActionRecord]:
        """Every finished action, by key; also those whose result is gone, since they still tell what a run takes."""
        for path in sorted(self.layout.folder("actions").glob("*/*.json")):
            record = record_from_json(read_json(path))
            if record is not None:
                yield record

    def tree(self, digest: str) -> Tree | None:
        """A published tree's list of files; None if it is not here, or its list is damaged."""
        return read_tree(self.layout, digest)

    def files(self, digest: str) -> Path:
        """The folder of a published tree's files."""
        return self.layout.files(digest)

    def remembered(self, kind: str, digest: str) -> Any | None:
        """A value noted with `remember`; None if there is none, or it is damaged."""
        noted = read_json(self.layout.memo(kind, digest))
        if not isinstance(noted, dict) or noted.keys() != {"value", "check"}:
            return None
        return noted["value"] if checksum(noted["value"]) == noted["check"] else None

    # -- checking -----------------------------------------------------------------------------------------------------

    def verify(self, digest: str) -> str | None:
        """Reads every byte of a tree; returns what is wrong with it, None if nothing is. It is left where it is."""
        found = self._checking.look(digest, full=True)
        self._checking.note_stale(digest)
        return found.damage

    def check(self, digest: str) -> str | None:
        """Looks at a tree that is about to be used, as `lookup` does, and sets it aside if it is damaged.

        Returns:
            What is wrong with it, and where it lies now; None if nothing is.

        Raises:
            BuildError: It cannot be moved.
        """
        return self._checking.set_aside(digest, full=False)

    def check_content(self, digest: str) -> str | None:
        """Like `check`, and every byte is read, unless this build has read or published it and nobody touched it since."""
        return self._checking.set_aside(digest, full=True)

    def trust(self, digest: str) -> None:
        """Counts a tree as read in this build: another process of the same build has just published it."""
        self._checking.trust(digest)

    # -- writing ------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Makes the store's folders and clears away what dead processes left.

        Raises:
            BuildError: It cannot be written.
        """
        self._checking.begin_build()
        with storage_errors(self.root):
            layouts.create(self.layout)
            remove_stale(self.layout.folder("tmp"))
            if self._older is not None:
                self._older.write_down()

    def mend(self) -> None:
        """Makes a damaged mark of the store again, as long as the other one is whole, and folders that are missing.

        For builds with nothing to do, which do not prepare: two damaged marks would be one too many, and a copy of a store
        may lack its empty folders. A store that may only be read stays as it is.
        """
        with suppress(OSError, BuildError):
            layouts.create(self.layout)

    @contextmanager
    def hold(self, key: str, on_wait: Callable[[], None], check: Callable[[], None] | None = None) -> Iterator[None]:
        """Holds the lock of one key: no other process builds it meanwhile. See `colbuild.store.locks.hold`.

        Raises:
            BuildError: The lock file cannot be made.
        """
        with ExitStack() as stack:
            with storage_errors(self.root):
                stack.enter_context(hold(self.layout.lock(key), on_wait, check))
            yield

    def set_aside_damaged(self, key: str) -> str | None:
        """Moves a damaged result of a key to the quarantine; returns what is wrong with it, None if nothing is.

        Raises:
            BuildError: It cannot be moved.
        """
        record = record_from_json(read_json(self.layout.action(key)))
        if record is None or not self.layout.object(record.output).exists():
            return None
        return self.check(record.output)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder for one action; its result belongs in `files` inside it. What is not published is removed."""
        with storage_errors(self.root), scratch_path(self.layout.folder("tmp")) as draft:
            (draft / "files").mkdir(parents=True)
            yield draft

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder for the time of the block.

        Raises:
            BuildError: It cannot be made.
        """
        with storage_errors(self.root), scratch_path(self.layout.folder("tmp")) as folder:
            folder.mkdir()
            yield folder

    def publish(self, draft: Path) -> Tree:
        """Puts a draft's `files` into the store under their digest.

        Raises:
            BuildError: Nothing was written, something other than files and folders was, or the disk refuses.
        """
        with storage_errors(self.root):
            tree, stamps = publish(self.layout, draft)
        self._checking.keep(tree.digest, stamps, stale=False, read=True)
        return tree

    def record(self, family: str, record: ActionRecord) -> None:
        """Notes a finished action whose result is published; from now on `lookup` finds it."""
        with storage_errors(self.root):
            write_json_durably(self.layout.folder("tmp"), self.layout.action(record.key), record_to_json(record))
        self._checking.note_stale(record.output)
        self._write_step(family, record)

    def note_step(self, family: str, record: ActionRecord) -> None:
        """Notes what a family's step last ran or found, for the reasons in the next plan; and its stamps, if need be.

        In a store that may only be read, nothing is noted.
        """
        self._checking.note_stale(record.output)
        if self.last(family, record.step) != record:
            with suppress(NotWritableError):
                self._write_step(family, record)

    def _write_step(self, family: str, record: ActionRecord) -> None:
        with storage_errors(self.root):
            write_json(self.layout.folder("tmp"), self.layout.step(family, record.step), record_to_json(record))

    def remember(self, kind: str, digest: str, value: Any) -> None:
        """Notes a small JSON value that follows from a digest and is dear to work out."""
        with storage_errors(self.root):
            noted = {"value": value, "check": checksum(value)}
            write_json(self.layout.folder("tmp"), self.layout.memo(kind, digest), noted)

    def partial(self, key: str) -> Path:
        """The folder for what an interrupted run of an action leaves to go on from, made by the first that leaves something.

        The key's lock is held.
        """
        return self.layout.partial(key)

    def forget_partial(self, key: str) -> None:
        """Removes what interrupted runs of a finished action left."""
        with storage_errors(self.root):
            remove(self.layout.partial(key))

    def place(self, digest: str, target: Path) -> Placement:
        """Makes `target`, outside the store, a copy of a published tree; as `assemble` does, and raises the same."""
        return self.assemble({digest: all_files}, target)

    def assemble(self, chosen: Mapping[str, Choose], target: Path) -> Placement:
        """Makes `target`, outside the store, a folder of files of published trees; see `colbuild.store.outputs`.

        Their content is checked first, unless they lie there already.

        Args:
            chosen: Digest of a tree -> chooses the files of it that are wanted. No path may come of two trees.
            target: The folder.

        Raises:
            DamagedTreeError: A tree is damaged, and set aside by now, or not in the store; `target` is as it was.
            BuildError: The disk refuses.
        """
        return assemble(self.layout, self.check_content, chosen, target.absolute())


def open_store(root: Path, former: Former | None = None) -> Store:
    """The store at a path, which need not exist yet.

    Args:
        root: The path.
        former: See `Store`.

    Raises:
        BuildError: The path holds something else, or a store of a newer version.
    """
    layout = Layout(root.absolute())
    try:
        with storage_errors(root):
            layouts.check(layout)
    except NotWritableError as error:
        # Nothing is written here: not even reading is allowed.
        raise NotWritableError(error.message.replace("cannot write", "cannot read", 1), hint=error.hint) from error
    return Store(layout, former)
