"""Checks published trees; a process does not read a checked tree twice."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from colbuild.errors import BuildError
from colbuild.store.durable_files import storage_errors
from colbuild.store.layout import Layout
from colbuild.store.objects import Look, held, look, note_stamps, quarantine
from colbuild.store.stamps import Stamps


@dataclass(frozen=True, eq=False)
class Checking:
    """Looks at the trees of a store, and what they found.

    Attributes:
        layout: Of the store.
        known: Tree -> the stamps that its files had when their content was found right. As good as noted stamps.
        stale: Trees whose content is right though the stamps noted beside them are missing or others: to be noted anew.
        read: Trees whose every file was read or written in this build. Between that and the next look in the same build,
            stamps that stay the same suffice: reading once more would only read the same pages of memory again.
    """

    layout: Layout
    known: dict[str, Stamps] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)

    def begin_build(self) -> None:
        """From now on no tree counts as read."""
        self.read.clear()

    def look(self, digest: str, *, full: bool = False) -> Look:
        """Looks at a tree; nothing is written. `full`: every file is read."""
        found = look(self.layout, digest, self.known.get(digest), full=full)
        if found.damage is None:
            self.keep(digest, found.stamps, stale=found.stale, read=full)
        else:
            self.known.pop(digest, None)
            self.stale.discard(digest)
            self.read.discard(digest)
        return found

    def keep(self, digest: str, stamps: Stamps, *, stale: bool, read: bool) -> None:
        """Remembers a tree that was found right."""
        self.known[digest] = stamps
        if stale:
            self.stale.add(digest)
        else:
            self.stale.discard(digest)
        if read:
            self.read.add(digest)

    def trust(self, digest: str) -> None:
        """Counts a tree as read in this build."""
        if self.look(digest).damage is None:
            self.read.add(digest)

    def set_aside(self, digest: str, *, full: bool) -> str | None:
        """Moves a tree that is damaged to the quarantine.

        Returns:
            What is wrong with it, and where it lies now; None if nothing is.

        Raises:
            BuildError: It cannot be moved.
        """
        if not self.layout.object(digest).exists():
            return "it is not in the store"
        if self.look(digest, full=full and digest not in self.read).damage is None:
            return None
        with storage_errors(self.layout.root), held(self.layout, digest):
            # Once more: another build may have set it aside and put a whole one in its place.
            found = self.look(digest, full=full).damage
            if found is None:
                return None
            place = quarantine(self.layout, digest)
        return f"{found}; quarantined as {place}" if place else found

    def note_stale(self, digest: str) -> None:
        """Notes the stamps of a tree that had to be read, so that the next look is quick again."""
        if digest in self.stale:
            self.stale.discard(digest)
            # In a store that may only be read, it is read each time.
            with suppress(OSError, BuildError):
                note_stamps(self.layout, digest, self.known[digest])
