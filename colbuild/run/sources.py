"""The contents behind a family's source URIs: known digests without the network, contents when a step needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from colbuild.ops.source import Fetched, fetch, look
from colbuild.run.events import Listener, SourceProgress
from colbuild.spec import LoadedFamily
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
        # A content that is not what the spec demands is refused when it is fetched, not built from.
        return pinned if pinned is not None else found

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
    """The sources of a family."""
    family = loaded.family
    asked = (family.ansnet, family.data.train, family.data.eval)
    pins = {item.source: item.sha256 for item in asked if item.sha256 is not None}
    return Sources(loaded.root, store.downloads, pins)
