"""Which archives of a project the configured places offer: folders and pages of links, the index, further indexes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
from packaging.utils import canonicalize_name
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    DistributionPackage,
    Link,
    NoSuchProjectError,
    ProjectPage,
    PyPISimple,
    UnsupportedContentTypeError,
    UnsupportedRepoVersionError,
)

from colbuild.ops.source.index_session import read_address, shown, why
from colbuild.ops.source.pip_settings import PipSettings


@dataclass(frozen=True)
class Offer:
    """What one place has of a project.

    Attributes:
        place: Its address as messages show it.
        packages: The archives; empty if it has none.
        trouble: Why it could not be asked; None if it could.
    """

    place: str
    packages: tuple[DistributionPackage, ...] = ()
    trouble: str | None = None


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
    """The path behind a file:// URL or a plain path; None for what lies elsewhere."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme in ("http", "https") else Path(url).expanduser()


def _ask(project: str, url: str, settings: PipSettings, session: requests.Session, *, is_index: bool) -> Offer:
    path = local_path(url)
    try:
        if path is not None:
            found = _from_disk(project, path / canonicalize_name(project) / "index.html" if is_index else path)
        elif is_index:
            found = PyPISimple(url, session=session).get_project_page(project, timeout=settings.timeout).packages
        else:
            found = _from_page(project, url, settings, session)
    except NoSuchProjectError:
        return Offer(shown(url))
    except requests.RequestException as error:
        return Offer(shown(url), trouble=why(error))
    except (UnsupportedContentTypeError, UnsupportedRepoVersionError, UnicodeDecodeError):
        return Offer(shown(url), trouble="what it answered is not a page of a package index")
    return Offer(shown(url), tuple(_of_project(project, found)))


def _from_disk(project: str, path: Path) -> list[DistributionPackage]:
    """Archives in a folder, or the links of a page. A place that does not exist has nothing, as for pip."""
    if path.is_dir():
        names = sorted(entry for entry in path.iterdir() if entry.is_file())
        return [DistributionPackage.from_link(Link(entry.name, entry.as_uri(), {}), project) for entry in names]
    if not path.is_file():
        return []
    return list(ProjectPage.from_html(project, path.read_bytes(), base_url=path.absolute().as_uri()).packages)


def _from_page(project: str, url: str, settings: PipSettings, session: requests.Session) -> list[DistributionPackage]:
    answer = session.get(url, timeout=settings.timeout)
    answer.raise_for_status()
    return list(ProjectPage.from_html(project, answer.content, base_url=answer.url).packages)


def _of_project(project: str, packages: Iterable[DistributionPackage]) -> Iterator[DistributionPackage]:
    wanted = canonicalize_name(project)
    for package in packages:
        if package.project is not None and package.version is not None and canonicalize_name(package.project) == wanted:
            yield package
