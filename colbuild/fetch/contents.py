"""The contents of a family's sources: known digests without the network, contents when a step needs them.

A lock pins what is fetched: the same content comes, or none. Files on this machine are the user's to edit, so a lock only tells
what they were, unless it is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colbuild.errors import BuildError, ColbuildError, SourceError, SourceUnavailableError
from colbuild.events import Listener, SourceProgress
from colbuild.fetch.downloads import check_lock
from colbuild.fetch.fetching import Fetched, Pin, fetch, listed, look
from colbuild.hashing import TreeEntry, tree_digest
from colbuild.progress import never
from colbuild.spec import Place, Problem
from colbuild.spec.sources.schemes import scheme_of
from colbuild.spec.text.problems import render


@dataclass(frozen=True)
class Sources:
    """Looks up a family's sources.

    Attributes:
        root: The project's root, which relative paths start at.
        downloads: The store's folder for what was fetched.
        pins: URI -> the sha256 that the spec demands.
        locked: URI -> what the lock says of it.
        frozen: Whether the lock decides about files on this machine, too.
        places: URI -> where the spec names it; None for a value that no file holds.
        beside: URI -> key beside it in the spec -> where that is written.
    """

    root: Path
    downloads: Path
    pins: Mapping[str, str]
    locked: Mapping[str, Pin] = field(default_factory=dict)
    frozen: bool = False
    places: Mapping[str, Place | None] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Place | None]] = field(default_factory=dict)

    @contextmanager
    def reading(self, uri: str, named: Place | None = None) -> Iterator[None]:
        """Gives every mistake that is met in a source's content the place where the spec names the source.

        Args:
            uri: The source.
            named: Which place is meant, where the spec names the source in several; by default the first.

        Raises:
            SourceUnavailableError: As it was raised, with the place.
            SourceError: For a `BuildError`: the source is there, and its content is not what the spec takes it for.
        """
        try:
            with self._finding(uri, named):
                yield
        except BuildError as error:
            # Other subclasses tell of the machine: memory ran out, the store is damaged.
            if error.placed or type(error) not in (BuildError, SourceError):
                raise
            raise SourceError(self._at(uri, error, named), hint=error.hint, placed=True) from error

    @contextmanager
    def _finding(self, uri: str, named: Place | None = None) -> Iterator[None]:
        """The same for a source that is unavailable; what else goes wrong while it is fetched is no mistake in the spec."""
        try:
            yield
        except SourceUnavailableError as error:
            if error.placed:
                raise
            raise SourceUnavailableError(self._at(uri, error, named), hint=error.hint, placed=True) from error

    def _at(self, uri: str, error: ColbuildError, named: Place | None) -> str:
        place = self.beside.get(uri, {}).get(error.key or "") or named or self.places.get(uri)
        return render(Problem(place, error.message))

    def digest(self, uri: str) -> str | None:
        """The digest of a source's content; None when only fetching it can tell.

        Raises:
            SourceUnavailableError: It should be on this machine and is not, and no lock says what it was.
        """
        if self._binding(uri) is not None:
            return self.locked[uri].digest
        try:
            with self._finding(uri):
                return self._found(uri)
        except SourceUnavailableError:
            # What was built of it can be planned and used without it; a step that has to read it will miss it.
            if uri not in self.locked:
                raise
            return self.locked[uri].digest

    def listing(self, uri: str) -> tuple[Path, tuple[TreeEntry, ...]] | None:
        """Returns a source's folder on this machine with its files; None if it is not a folder, or is not the pinned one."""
        try:
            found = listed(uri, root=self.root, downloads=self.downloads)
            return found if found is not None and tree_digest(found[1]) == self.digest(uri) else None
        except ColbuildError:
            return None

    def find_all(self) -> None:
        """Looks every source of the family up.

        Raises:
            SourceUnavailableError: With all that should be on this machine and are not.
        """
        lost = []
        for uri in self.places:
            try:
                self.digest(uri)
            except SourceUnavailableError as error:
                lost.append(error)
        if len(lost) == 1:
            raise lost[0]
        if lost:
            told = [error.message + (f"\n  = {error.hint}" if error.hint else "") for error in lost]
            raise SourceUnavailableError(f"{len(lost)} sources are unavailable\n\n" + "\n\n".join(told), placed=True)

    def check(self, uri: str) -> None:
        """Compares what is known of a source without the network with what binds it.

        Raises:
            SourceUnavailableError: It is something else.
        """
        try:
            found = look(uri, root=self.root, downloads=self.downloads)
        except SourceUnavailableError:
            return
        if found is not None:
            with self._finding(uri):
                check_lock(uri, found, self._binding(uri))

    def _binding(self, uri: str) -> Pin | None:
        """What the lock demands of a source."""
        return self.locked.get(uri) if self.frozen or is_fetched(uri) else None

    def _found(self, uri: str) -> str | None:
        pinned = self.pins.get(uri)
        found = look(uri, root=self.root, downloads=self.downloads)
        if found is None:
            return pinned
        # A content that is not what the spec demands is nothing to build from: fetching it tells the user so.
        return found if pinned in (None, found) else None

    def text_size(self, uri: str, params: Mapping[str, Any]) -> tuple[int, bool] | None:
        """Bytes of a text's files, and whether any is compressed; None if that is not known without fetching it.

        Args:
            uri: Where it comes from.
            params: How the step that packs it reads it.

        Raises:
            SourceError: It is of a kind that no corpus can be read from.
        """
        from colbuild.fetch.texts.text_size import text_size  # nothing else of a plan needs it

        with self.reading(uri):
            found = text_size(uri, params["format"], params.get("files", ()), root=self.root, downloads=self.downloads)
        return None if found is None else (found.bytes, found.packed)

    def fetch(self, uri: str, listener: Listener, stopping: Callable[[], bool] = never) -> Fetched:
        """The content of a source, fetched if it is not here, unless `stopping` says meanwhile that the build shall stop.

        Raises:
            StoppedError: It shall.
            SourceUnavailableError: It cannot be had, or is not what was pinned.
        """
        with self._finding(uri):
            return fetch(
                uri,
                root=self.root,
                downloads=self.downloads,
                sha256=self.pins.get(uri),
                report=lambda progress: listener(SourceProgress(uri, progress)),
                pin=self._binding(uri),
                stopping=stopping,
            )


def is_fetched(uri: str) -> bool:
    """Returns whether a source comes over the network, rather than lying on this machine."""
    row = scheme_of(uri)
    return row is not None and row.remote
