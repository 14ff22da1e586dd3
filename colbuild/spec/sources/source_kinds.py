"""The kinds of source as values, and the parsers of their texts, one for each of `colbuild.spec.sources.schemes.SCHEMES`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from colbuild.spec.sources.hub_pages import DATASETS, page_of_hub, with_owner

if TYPE_CHECKING:
    from colbuild.spec.sources.schemes import Scheme

DEFAULT_REVISION: Final = "main"

_PROJECT: Final = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$")
_VERSION: Final = re.compile(r"^v?(?:\d+!)?\d+(?:\.\d+)*[0-9A-Za-z._+-]*$")
_HUB_NAME: Final = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$")
# A pull request's or conversion's revision is the one kind with slashes that needs no escape (%2F does for any other).
_HUB_SLASHED: Final = re.compile(r"^(refs/(?:pr|convert)/[^/]+)(?:/(.*))?$")


class Source:
    """A parsed source; each scheme has its own kind."""

    @property
    def file_name(self) -> str:
        """The name of its file or folder."""
        raise NotImplementedError

    @property
    def local_path(self) -> str | None:
        """The path that the text writes, of a file or folder of the user's own; None for all else."""
        return None


def is_plain_path(path: str) -> bool:
    """Returns whether a relative path stays below where it begins: no empty part, no "." and no ".."."""
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class LocalSource(Source):
    """A file or folder on this machine.

    Attributes:
        path: Without "./" and trailing slashes: relative to the project's root, or absolute.
    """

    path: str

    @property
    def is_absolute(self) -> bool:
        """Whether it may lie outside the project."""
        return self.path.startswith("/")

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return _last(self.path)

    @property
    def local_path(self) -> str:
        """Its path."""
        return self.path


@dataclass(frozen=True)
class PackageSource(Source):
    """A file that an installed Python package brings along.

    Attributes:
        package: The import name, with dots for a package inside a package.
        path: The file, relative to the package's folder.
    """

    package: str
    path: str

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return _last(self.path)


@dataclass(frozen=True)
class PyPISource(Source):
    """A file in a wheel or sdist of the configured package index.

    Attributes:
        project: The distribution's name.
        version: The exact version.
        path: The file, as it is called in the archive.
    """

    project: str
    version: str
    path: str

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return _last(self.path)


@dataclass(frozen=True)
class HubSource(Source):
    """A repository of the Hugging Face Hub, or one file in it.

    Attributes:
        kind: What the repository holds.
        repo: "org/name".
        revision: A branch, tag or commit.
        path: The file; None for the whole repository.
    """

    kind: Literal["model", "dataset"]
    repo: str
    revision: str = DEFAULT_REVISION
    path: str | None = None

    @property
    def file_name(self) -> str:
        """The last part of its path; the repository's name for a whole repository."""
        return _last(self.path if self.path is not None else self.repo)


def parse_local(text: str, _: Scheme) -> LocalSource:
    """Reads a path."""
    mistake = _mistake(text)
    if mistake is not None:
        raise ValueError("; ".join(mistake))
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts:
        raise ValueError(f"'{text}' names no file or folder")
    return LocalSource(("/" if text.startswith("/") else "") + "/".join(parts))


def parse_package(text: str, row: Scheme) -> PackageSource:
    """Reads an installed package's file."""
    package, _, path = row.rest(text).partition("/")
    if not all(part.isidentifier() for part in package.split(".")):
        raise ValueError(f"'{package}' is not the import name of a package; write {row.example}")
    return PackageSource(package, _member(path, row.example))


def parse_pypi(text: str, row: Scheme) -> PyPISource:
    """Reads an archive's file."""
    requirement, _, path = row.rest(text).partition("/")
    project, equals, version = requirement.partition("==")
    name = re.split(r"[<>=~!]", project)[0]
    if not _PROJECT.match(name):
        raise ValueError(f"'{name}' is not the name of a distribution; write {row.example}")
    if not equals or name != project or not _VERSION.match(version):
        raise ValueError(f"an exact version is needed, such as {name}==1.0; write {row.example}")
    return PyPISource(project, version, _member(path, row.example))


def parse_hub(text: str, row: Scheme) -> HubSource:
    """Reads a repository, or a file in it."""
    whole = row.rest(text)
    kind = DATASETS if whole.startswith(DATASETS) else ""
    form = row.forms[1 if kind else 0]
    organisation, _, rest = whole.removeprefix(DATASETS).partition("/")
    at, slash = rest.find("@"), rest.find("/")
    pinned = at >= 0 and (slash < 0 or at < slash)
    if pinned:
        name, rest = rest[:at], rest[at + 1 :]
        revision, path = _revision(rest, form)
    else:
        name, separator, after = rest.partition("/")
        revision, path = DEFAULT_REVISION, after if separator else None
    if not _HUB_NAME.match(organisation) or not _HUB_NAME.match(name):
        meant = _meant(whole.removeprefix(DATASETS), kind, row) or f"write {form}"
        raise ValueError(f"'{organisation}/{name}' is not a repository's name; {meant}")
    if organisation in ("models", "spaces"):
        raise ValueError(f"'{organisation}/' is not part of a repository's name; write {form}")
    page = None if path is None or pinned else page_of_hub(path)
    if page is not None:
        raise ValueError(
            f"'{path}' is part of a page's address; write '{row.beginning}{kind}{organisation}/{name}{page}'"
        )
    file = None if path is None else _member(path, form)
    return HubSource("dataset" if kind else "model", f"{organisation}/{name}", revision, file)


def _meant(bare: str, kind: str, row: Scheme) -> str | None:
    """The hint for a hub source that is no repository, such as 'gpt2', 'https://…' or 'org/name:Q4_K_M' after its beginning."""
    mistake = _mistake(bare, dataset=bool(kind)) if "://" in bare else None
    if mistake is not None:
        return mistake[1]
    owned = with_owner(bare)
    if owned is not None:
        return f"did you mean '{row.beginning}{kind}{owned}'?"
    name, colon, _ = bare.partition(":")
    return f"name the file: {row.beginning}{name}@{DEFAULT_REVISION}/FILE.gguf" if colon and "/" in name else None


def _revision(rest: str, form: str) -> tuple[str, str | None]:
    slashed = _HUB_SLASHED.match(rest)
    if slashed:
        return slashed.group(1), slashed.group(2)
    revision, separator, path = rest.partition("/")
    revision = revision.replace("%2F", "/").replace("%2f", "/")
    if not revision or ".." in revision:
        raise ValueError(f"a branch, tag or commit is needed after '@'; write {form}")
    return revision, path if separator else None


def _mistake(text: str, *, dataset: bool = False) -> tuple[str, str] | None:
    # Mistakes name the schemes, whose table names the parsers here.
    from colbuild.spec.sources.mistakes import source_mistake

    return source_mistake(text, dataset=dataset)


def _member(path: str, form: str) -> str:
    """A file's path inside a package, archive or repository: it can lead nowhere else."""
    if not path:
        raise ValueError(f"a file is needed; write {form}")
    if not is_plain_path(path):
        raise ValueError(f"'{path}' is not a plain path: no empty part, '.' or '..'; write {form}")
    return path
