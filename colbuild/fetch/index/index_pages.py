"""Lists the archives of a project in the configured places: folders, pages of links, and indexes."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
from packaging.utils import canonicalize_name
from pypi_simple import ACCEPT_ANY, PYPI_SIMPLE_ENDPOINT, DistributionPackage, Link

from colbuild.arriving import BoundError
from colbuild.bounds import PAGE_BYTES
from colbuild.documents import MalformedError, parse_json, read_regular
from colbuild.fetch.index.html_links import check_version, read_links
from colbuild.fetch.index.index_session import read_address, shown, why
from colbuild.fetch.index.pip_settings import PipSettings

_JSON: Final = "application/vnd.pypi.simple.v1+json"
_HTML: Final = frozenset({"application/vnd.pypi.simple.v1+html", "text/html"})
_CHARSETS: Final = frozenset({"utf-8", "ascii", "iso8859-1", "cp1252"})
_NOT_FOUND: Final = 404
_LONGEST_NAME: Final = 255
_MOST_DASHES: Final = 20
"""In an archive's name, which has five at most of its own; each more costs a parser of names a power of time."""


@dataclass(frozen=True)
class Offer:
    """The archives of a project in one place.

    Attributes:
        place: Its address as messages show it.
        packages: The archives; empty if it has none.
        trouble: Why it could not be asked; None if it could.
        is_local: Whether it lies on this machine: only then may a link lead to a file of it.
    """

    place: str
    packages: tuple[DistributionPackage, ...] = ()
    trouble: str | None = None
    is_local: bool = False


def index_urls(settings: PipSettings) -> tuple[str, ...]:
    """The indexes in the order in which they are asked."""
    if settings.no_index:
        return ()
    return (settings.index_url or PYPI_SIMPLE_ENDPOINT, *settings.extra_index_urls)


def offers(project: str, settings: PipSettings, session: requests.Session) -> Iterator[Offer]:
    """Asks one place after the other; the caller stops when it has what it needs."""
    for link in settings.find_links:
        yield _ask(project, read_address(link).url, settings, session, is_index=False)
    for url in index_urls(settings):
        yield _ask(project, read_address(url).url, settings, session, is_index=True)


def local_path(url: str) -> Path | None:
    """The path behind a file:// URL or a plain path; None for what lies elsewhere.

    Raises:
        ValueError: It is no URL.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme in ("http", "https") else Path(url).expanduser()


def _ask(project: str, url: str, settings: PipSettings, session: requests.Session, *, is_index: bool) -> Offer:
    try:
        path = local_path(url)
        if path is not None:
            found = _from_disk(project, path / canonicalize_name(project) / "index.html" if is_index else path)
        else:
            found = _from_page(project, _page_url(url, project) if is_index else url, settings, session)
        return Offer(shown(url), tuple(_of_project(project, found)), is_local=path is not None)
    except (requests.RequestException, BoundError) as error:
        # What is no URL, or names none, is also an error of this kind.
        response = error.response if isinstance(error, requests.HTTPError) else None
        if is_index and response is not None and response.status_code == _NOT_FOUND:
            return Offer(shown(url))
        return Offer(shown(url), trouble=why(error))
    except MalformedError as error:
        return Offer(shown(url), trouble=f"its answer is not a page of a package index: {error}")
    except (ValueError, OSError) as error:
        reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
        return Offer(shown(url), trouble=f"its answer is not a page of a package index{reason}")


def _page_url(index: str, project: str) -> str:
    return f"{index.rstrip('/')}/{canonicalize_name(project)}/"


def _from_disk(project: str, path: Path) -> list[DistributionPackage]:
    """Archives in a folder, or the links of a page. A place that does not exist has nothing, as for pip."""
    if path.is_dir():
        names = sorted(entry for entry in path.iterdir() if entry.is_file())
        return [package for entry in names for package in _package(project, entry.name, entry.absolute().as_uri())]
    if not path.is_file():
        return []
    return _linked(project, read_regular(path, PAGE_BYTES), "utf-8", path.absolute().as_uri())


def _from_page(project: str, url: str, settings: PipSettings, session: requests.Session) -> list[DistributionPackage]:
    answer = session.get(url, timeout=settings.timeout, headers={"Accept": ACCEPT_ANY})
    answer.raise_for_status()
    told = Message()
    told["Content-Type"] = answer.headers.get("Content-Type", "text/html")
    if told.get_content_type() == _JSON:
        return _listed(project, parse_json(answer.content), answer.url)
    if told.get_content_type() not in _HTML:
        raise MalformedError(f"it is of the type {told.get_content_type()[:80]!a}")
    return _linked(project, answer.content, str(told.get_param("charset", "utf-8")), answer.url)


def _linked(project: str, page: bytes, charset: str, base: str) -> list[DistributionPackage]:
    """The archives that a page of links has."""
    try:
        charset = codecs.lookup(charset).name
    except (LookupError, ValueError):
        charset = "utf-8"
    text = page.decode(charset if charset in _CHARSETS else "utf-8", errors="replace")
    links = read_links(text, base, lambda name: _is_of(project, name))
    return [package for link in links for package in _package(project, link.text, link.url)]


def _listed(project: str, page: Any, base: str) -> list[DistributionPackage]:
    """The archives that a page in JSON lists (PEP 691)."""
    if not isinstance(page, dict) or not isinstance(page.get("files"), list) or not isinstance(page.get("meta"), dict):
        raise MalformedError("it is not a list of files")
    check_version(page["meta"].get("api-version"))
    found = []
    for entry in page["files"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
            raise MalformedError("it lists an entry that is not a file")
        if _is_of(project, entry["filename"]):
            found.append(DistributionPackage.from_json_data(entry, project, base))
    return found


def _package(project: str, name: str, url: str) -> Iterator[DistributionPackage]:
    """The archive behind a link; none if its name is not one of the project's, or its address is none."""
    if _is_of(project, name):
        try:
            yield DistributionPackage.from_link(Link(name, url, {}), project)
        except ValueError:
            return


def _is_of(project: str, name: str) -> bool:
    return (
        len(name) <= _LONGEST_NAME
        and name.count("-") <= _MOST_DASHES
        and name.isprintable()
        and canonicalize_name(name).startswith(f"{canonicalize_name(project)}-")
    )


def _of_project(project: str, packages: Iterable[DistributionPackage]) -> Iterator[DistributionPackage]:
    """Those that are the project's, with digests that can be compared."""
    wanted = canonicalize_name(project)
    for package in packages:
        if package.project is not None and package.version is not None and canonicalize_name(package.project) == wanted:
            digests = {name: value for name, value in package.digests.items() if name in _DIGESTS}
            yield replace(package, digests=digests)


_DIGESTS: Final = frozenset(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))
