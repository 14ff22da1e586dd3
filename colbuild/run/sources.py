"""The contents behind a family's source URIs: known digests without the network, contents when a step needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from colbuild.ops.source import Fetched, fetch, look
from colbuild.run.events import Listener, SourceProgress
from colbuild.spec import LoadedFamily, Problem, spec_error
from colbuild.store import Store


@dataclass(frozen=True)
class Sources:
    """Where a family's sources are looked up.

    Attributes:
        root: The project's root, which relative paths start at.
        downloads: The store's folder for what was fetched.
        pins: URI -> the sha256 that the spec demands.
    """

    root: Path
    downloads: Path
    pins: Mapping[str, str]

    def digest(self, uri: str) -> str | None:
        """The digest of a source's content; None when only fetching it can tell."""
        pinned = self.pins.get(uri)
        found = look(uri, root=self.root, downloads=self.downloads)
        if found is None:
            return pinned
        # A content that is not what the spec demands is nothing to build from: fetching it tells the user so.
        return found if pinned in (None, found) else None

    def fetch(self, uri: str, listener: Listener) -> Fetched:
        """The content of a source, fetched if it is not here.

        Raises:
            SourceUnavailableError: It cannot be had, or is not what was pinned.
        """
        return fetch(
            uri,
            root=self.root,
            downloads=self.downloads,
            sha256=self.pins.get(uri),
            report=lambda progress: listener(SourceProgress(uri, progress)),
        )


def sources_of(loaded: LoadedFamily, store: Store) -> Sources:
    """The sources of a family.

    Raises:
        SpecError: Two digests are demanded of one source.
    """
    family = loaded.family
    pins: dict[str, str] = {}
    for path, item in (
        (("ansnet",), family.ansnet),
        (("data", "train"), family.data.train),
        (("data", "eval"), family.data.eval),
    ):
        if item.sha256 is not None and pins.setdefault(item.source, item.sha256) != item.sha256:
            message = f"'sha256': {item.source} has another sha256 elsewhere in this file"
            raise spec_error([Problem(loaded.places.nearest((*path, "sha256")), message, "give it one, everywhere")])
    return Sources(loaded.root, store.downloads, pins)
