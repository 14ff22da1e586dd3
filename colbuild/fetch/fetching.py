"""Fetches a source's URI to a local path with a known digest.

A source is read by the module that its scheme's row names, imported when it is needed: the clients of networks are slow to
import, and a plan, which only looks, needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

from colbuild.arch.files.model_config import read_config
from colbuild.errors import SourceUnavailableError
from colbuild.fetch import local
from colbuild.fetch.downloads import Download, Fetched, Pin, check_lock, check_pin, fetch_once, kept, recorded
from colbuild.hashing import TreeEntry
from colbuild.progress import Report, never, silent
from colbuild.spec.sources.choice import split_files
from colbuild.spec.sources.grammar import parse_source, read_source

__all__ = ["Fetched", "Pin", "fetch", "listed", "look", "origin", "path_here", "read_config"]


def look(uri: str, *, root: Path, downloads: Path) -> str | None:
    """The digest of a source's content, as far as it is known without any network.

    What lies on this machine is hashed, or remembered since it was last hashed. What was fetched before is known by its
    record, even if its content is gone.

    Args:
        uri: A source in the grammar of `colbuild.spec.sources.grammar`.
        root: The project's folder, which "./" stands for.
        downloads: Where fetched sources are kept.

    Returns:
        The digest; None if the source has to be fetched first.

    Raises:
        SourceUnavailableError: A source on this machine does not exist or cannot be read.
    """
    here = _here(uri, root)
    if here is not None:
        return local.digest(here, downloads)
    record = recorded(downloads, uri)
    return record.digest if record else None


def path_here(uri: str, *, root: Path, downloads: Path) -> Path | None:
    """Returns the path of a source's content on this machine, fetched or local; None if it is not here."""
    try:
        found = _here(uri, root)
    except SourceUnavailableError:
        return None
    return found.path if found is not None else kept(downloads, uri, parse_source(uri).file_name)


def listed(uri: str, *, root: Path, downloads: Path) -> tuple[Path, tuple[TreeEntry, ...]] | None:
    """Returns the folder of a source on this machine with its files; None if it is not a folder, or is not here.

    Raises:
        SourceUnavailableError: A source on this machine does not exist or cannot be read.
    """
    here = _here(uri, root)
    if here is not None:
        return (here.path, local.listed(here, downloads)) if here.path.is_dir() else None
    record, path = recorded(downloads, uri), kept(downloads, uri, parse_source(uri).file_name)
    return None if record is None or path is None or not record.is_folder else (path, record.files)


def origin(uri: str, *, downloads: Path) -> Mapping[str, str]:
    """Returns the origin's own name of a fetched source's content, such as a hub's commit; empty if not fetched."""
    record = recorded(downloads, uri)
    return record.origin if record else {}


def fetch(
    uri: str,
    *,
    root: Path,
    downloads: Path,
    sha256: str | None = None,
    report: Report = silent,
    pin: Pin | None = None,
    stopping: Callable[[], bool] = never,
) -> Fetched:
    """Gets a source, unless it is here already.

    Args:
        uri: A source in the grammar of `colbuild.spec.sources.grammar`.
        root: The project's folder, which "./" stands for.
        downloads: Where fetched sources are kept.
        sha256: The digest that it must have.
        report: Called now and then with the progress made.
        pin: What a lock says that it must be.
        stopping: Asked a few times a second whether to stop.

    Raises:
        StoppedError: It was asked to stop.
        SourceUnavailableError: It cannot be reached, does not exist, or is not what was asked for, pinned or was before.
        BuildError: It cannot be kept on this disk.
    """
    here = _here(uri, root)
    if here is not None:
        found = Fetched(here.path, local.digest(here, downloads))
        check_pin(uri, found.digest, sha256)
        check_lock(uri, found.digest, pin)
        return found
    row, source = read_source(uri)
    get = partial(import_module(row.reader).get, source, split_files(uri)[1])
    download = Download(uri, source.file_name, get)
    return fetch_once(download, downloads=downloads, sha256=sha256, report=report, pin=pin, stopping=stopping)


def _here(uri: str, root: Path) -> local.Place | None:
    """Where a source lies if it is on this machine; None if it has to be fetched."""
    row, source = read_source(uri)
    return None if row.remote else local.choosing(import_module(row.reader).place(uri, source, root))
