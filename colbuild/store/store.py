"""The store: what was built, found again by what decided it.

Reading never writes, so that `plan` and `status` work on a store that belongs to another user or does not exist yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colbuild.store import layout as layouts
from colbuild.store.files import read_json, storage_errors, write_json, write_json_durably
from colbuild.store.layout import Layout
from colbuild.store.locks import hold, remove_stale, scratch_path
from colbuild.store.objects import Tree, damage, publish, quarantine
from colbuild.store.outputs import Placement, place_tree
from colbuild.store.records import ActionRecord, record_from_json, record_to_json


@dataclass(frozen=True)
class Store:
    """A store at an absolute path; made on the first write."""

    layout: Layout

    @property
    def root(self) -> Path:
        """Where it lies."""
        return self.layout.root

    @property
    def downloads(self) -> Path:
        """Where fetched sources lie."""
        return self.layout.folder("downloads")

    # -- reading ------------------------------------------------------------------------------------------------------

    def lookup(self, key: str) -> ActionRecord | None:
        """The record of an action whose result is here and looks whole: names and sizes are compared, contents not."""
        record = record_from_json(read_json(self.layout.action(key)))
        if record is None or record.key != key or damage(self.layout, record.output) is not None:
            return None
        return record

    def last(self, family: str, step: str) -> ActionRecord | None:
        """What a step of a family last ran or found; None if it never did."""
        return record_from_json(read_json(self.layout.step(family, step)))

    def records(self) -> Iterator[ActionRecord]:
        """Every finished action, by key; also those whose result is gone, since they still tell what a run takes."""
        for path in sorted(self.layout.folder("actions").glob("*/*.json")):
            record = record_from_json(read_json(path))
            if record is not None:
                yield record

    def files(self, digest: str) -> Path:
        """The folder of a published tree's files."""
        return self.layout.files(digest)

    def remembered(self, kind: str, digest: str) -> Any | None:
        """A value noted with `remember`; None if there is none."""
        return read_json(self.layout.memo(kind, digest))

    # -- writing ------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Makes the store's folders and clears away what dead processes left.

        Raises:
            BuildError: It cannot be written.
        """
        with storage_errors(self.root):
            layouts.create(self.layout)
            remove_stale(self.layout.folder("tmp"))

    @contextmanager
    def hold(self, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """Holds the lock of one key: no other process builds it meanwhile. `on_wait` is called before a wait.

        Raises:
            BuildError: The lock file cannot be made.
        """
        with ExitStack() as stack:
            with storage_errors(self.root):
                stack.enter_context(hold(self.layout.lock(key), on_wait))
            yield

    def set_aside_damaged(self, key: str) -> str | None:
        """Moves a damaged result of a key to the quarantine; returns what is wrong with it, None if nothing is.

        Raises:
            BuildError: It cannot be moved.
        """
        record = record_from_json(read_json(self.layout.action(key)))
        if record is None or not self.layout.object(record.output).exists():
            return None
        found = damage(self.layout, record.output)
        if found is None:
            return None
        with storage_errors(self.root):
            place = quarantine(self.layout, record.output)
        return f"{found}; set aside as {place}" if place else found

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder for one action; its result belongs in `files` inside it. What is not published is removed."""
        with storage_errors(self.root), scratch_path(self.layout.folder("tmp")) as draft:
            (draft / "files").mkdir(parents=True)
            yield draft

    def publish(self, draft: Path) -> Tree:
        """Puts a draft's `files` into the store under their digest.

        Raises:
            BuildError: Nothing was written, something other than files and folders was, or the disk refuses.
        """
        with storage_errors(self.root):
            return publish(self.layout, draft)

    def record(self, family: str, record: ActionRecord) -> None:
        """Notes a finished action whose result is published; from now on `lookup` finds it."""
        with storage_errors(self.root):
            write_json_durably(self.layout.folder("tmp"), self.layout.action(record.key), record_to_json(record))
        self.note_step(family, record)

    def note_step(self, family: str, record: ActionRecord) -> None:
        """Notes what a family's step last ran or found, for the reasons in the next plan."""
        if self.last(family, record.step) == record:
            return
        with storage_errors(self.root):
            write_json(self.layout.folder("tmp"), self.layout.step(family, record.step), record_to_json(record))

    def remember(self, kind: str, digest: str, value: Any) -> None:
        """Notes a small JSON value that follows from a digest and is dear to work out."""
        with storage_errors(self.root):
            write_json(self.layout.folder("tmp"), self.layout.memo(kind, digest), value)

    def place(self, digest: str, target: Path) -> Placement:
        """Makes `target`, outside the store, a copy of a published tree; see `colbuild.store.outputs`."""
        with storage_errors(target):
            return place_tree(self.layout, digest, target.absolute())


def open_store(root: Path) -> Store:
    """The store at a path, which need not exist yet.

    Raises:
        BuildError: The path holds something else, or a store of a newer version.
    """
    layout = Layout(root.absolute())
    with storage_errors(root):
        layouts.check(layout)
    return Store(layout)
