"""Where something comes from, as the user writes it: five kinds of source and their grammar.

Only the text is looked at here; `colbuild.fetch.schemes` fetches what it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from colbuild.spec.sources.choice import MARK, split_files
from colbuild.spec.sources.mistakes import page_of_hub, source_mistake, with_owner

DEFAULT_REVISION = "main"

_SUPPORTED = (
    "./folder-or-file, /absolute/path, pkg://package/file, pypi://name==version/path/in/archive, "
    "hf://org/name@revision[/file] or hf://datasets/org/name@revision[/file]"
)
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://(.*)$", re.DOTALL)
_PROJECT = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$")
_VERSION = re.compile(r"^v?(?:\d+!)?\d+(?:\.\d+)*[0-9A-Za-z._+-]*$")
_HUB_NAME = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$")
# A pull request's or conversion's revision is the one kind with slashes that needs no escape (%2F does for any other).
_HUB_SLASHED = re.compile(r"^(refs/(?:pr|convert)/[^/]+)(?:/(.*))?$")


@dataclass(frozen=True)
class LocalSource:
    """A file or folder on this machine.

    Attributes:
        path: Without "./" and trailing slashes: relative to the project's root, or absolute.
    """

    path: str

    @property
    def is_absolute(self) -> bool:
        """Whether it may lie outside the project."""
        return self.path.startswith("/")


@dataclass(frozen=True)
class PackageSource:
    """A file that an installed Python package brings along.

    Attributes:
        package: The import name, with dots for a package inside a package.
        path: The file, relative to the package's folder.
    """

    package: str
    path: str


@dataclass(frozen=True)
class PyPISource:
    """A file in a wheel or sdist of the configured package index.

    Attributes:
        project: The distribution's name.
        version: The exact version.
        path: The file, as it is called in the archive.
    """

    project: str
    version: str
    path: str


@dataclass(frozen=True)
class HubSource:
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


Source = LocalSource | PackageSource | PyPISource | HubSource


def check_source(text: str) -> str:
    """The text itself, if it is a source.

    Raises:
        ValueError: It is not; the message says what was expected.
    """
    parse_source(_without_choice(text))
    return text


def check_data_source(text: str) -> str:
    """Like `check_source`, for a source of text: what is suggested instead is a dataset."""
    parse_source(_without_choice(text), dataset=True)
    return text


def _without_choice(text: str) -> str:
    if MARK in text:
        raise ValueError(f"'{MARK}' is not allowed in a source; write the choice of files beside it: files: train-*")
    return text


def parse_source(text: str, *, dataset: bool = False) -> Source:
    """Reads a source; which of its files are meant, if that is part of the text, is left out.

    Args:
        text: As the user wrote it.
        dataset: Whether a dataset is suggested where it is no source, rather than a model.

    Raises:
        ValueError: It is none of the supported kinds, or lacks a part; the message says what was expected.
    """
    text, _ = split_files(text)
    if not text.strip():
        raise ValueError(f"a source is needed; {_SUPPORTED}")
    if any(ord(character) < 32 for character in text) or text != text.strip():
        raise ValueError("a source has no line breaks or control characters, nor spaces around it")
    scheme = _SCHEME.match(text)
    read = _READERS.get(scheme.group(1)) if scheme else None
    if scheme is not None and read is not None:
        return read(scheme.group(2))
    mistake = source_mistake(text, dataset=dataset)
    if mistake is not None:
        raise ValueError("; ".join(mistake))
    if scheme is not None:
        raise ValueError(f"'{scheme.group(1)}://' is not supported; supported: {_SUPPORTED}")
    return _local(text)


def source_file_name(source: Source) -> str:
    """The last part of its path; the repository's name for a whole repository."""
    path = source.path if source.path is not None else source.repo
    return path.rsplit("/", 1)[-1]


def is_plain_path(path: str) -> bool:
    """Whether a relative path stays below where it begins: no empty part, no "." and no ".."."""
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _local(text: str) -> LocalSource:
    if not text.startswith(("./", "/")):
        raise ValueError(f"'{text}' is not a source; supported: {_SUPPORTED}")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts:
        raise ValueError(f"'{text}' names no file or folder")
    return LocalSource(("/" if text.startswith("/") else "") + "/".join(parts))


def _package(rest: str) -> PackageSource:
    package, _, path = rest.partition("/")
    if not all(part.isidentifier() for part in package.split(".")):
        raise ValueError(f"'{package}' is not the import name of a package; write pkg://package/file/in/package")
    return PackageSource(package, _member(path, "pkg://package/file/in/package"))


def _pypi(rest: str) -> PyPISource:
    form = "pypi://name==version/path/in/archive"
    requirement, _, path = rest.partition("/")
    project, equals, version = requirement.partition("==")
    name = re.split(r"[<>=~!]", project)[0]
    if not _PROJECT.match(name):
        raise ValueError(f"'{name}' is not the name of a distribution; write {form}")
    if not equals or name != project or not _VERSION.match(version):
        raise ValueError(f"an exact version is needed, such as {name}==1.0; write {form}")
    return PyPISource(project, version, _member(path, form))


def _hub(rest: str) -> HubSource:
    whole, dataset = rest, rest.startswith("datasets/")
    form = "hf://datasets/org/name@revision[/file]" if dataset else "hf://org/name@revision[/file]"
    organisation, _, rest = (rest.removeprefix("datasets/")).partition("/")
    at, slash = rest.find("@"), rest.find("/")
    pinned = at >= 0 and (slash < 0 or at < slash)
    if pinned:
        name, rest = rest[:at], rest[at + 1 :]
        revision, path = _revision(rest, form)
    else:
        name, separator, after = rest.partition("/")
        revision, path = DEFAULT_REVISION, after if separator else None
    if not _HUB_NAME.match(organisation) or not _HUB_NAME.match(name):
        raise ValueError(
            f"'{organisation}/{name}' is not a repository's name; {_meant(whole, dataset) or f'write {form}'}"
        )
    if organisation in ("models", "spaces"):
        raise ValueError(f"'{organisation}/' is not part of a repository's name; write {form}")
    page = None if path is None or pinned else page_of_hub(path)
    if page is not None:
        kind = "datasets/" if dataset else ""
        raise ValueError(f"'{path}' is part of a page's address; write 'hf://{kind}{organisation}/{name}{page}'")
    file = None if path is None else _member(path, form)
    return HubSource("dataset" if dataset else "model", f"{organisation}/{name}", revision, file)


def _meant(rest: str, dataset: bool) -> str | None:
    """What somebody meant whose hub source is no repository: 'hf://gpt2', 'hf://https://…', 'hf://org/name:Q4_K_M'."""
    bare = rest.removeprefix("datasets/")
    mistake = source_mistake(bare, dataset=dataset) if "://" in bare else None
    if mistake is not None:
        return mistake[1]
    owned = with_owner(bare)
    if owned is not None:
        return f"did you mean 'hf://{'datasets/' if dataset else ''}{owned}'?"
    name, colon, _ = bare.partition(":")
    return f"name the file: hf://{name}@{DEFAULT_REVISION}/FILE.gguf" if colon and "/" in name else None


def _revision(rest: str, form: str) -> tuple[str, str | None]:
    slashed = _HUB_SLASHED.match(rest)
    if slashed:
        return slashed.group(1), slashed.group(2)
    revision, separator, path = rest.partition("/")
    revision = revision.replace("%2F", "/").replace("%2f", "/")
    if not revision or ".." in revision:
        raise ValueError(f"a branch, tag or commit is needed after '@'; write {form}")
    return revision, path if separator else None


def _member(path: str, form: str) -> str:
    """A file's path inside a package, archive or repository: it can lead nowhere else."""
    if not path:
        raise ValueError(f"a file is needed; write {form}")
    if not is_plain_path(path):
        raise ValueError(f"'{path}' is not a plain path: no empty part, '.' or '..'; write {form}")
    return path


_READERS: Mapping[str, Callable[[str], Source]] = {"pkg": _package, "pypi": _pypi, "hf": _hub}
