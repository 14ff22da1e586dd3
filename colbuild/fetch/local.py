"""Sources on this machine: `./file`, `./folder` and absolute paths."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from colbuild.arch.files.gguf_split import split_names
from colbuild.documents import unreadable
from colbuild.errors import SourceUnavailableError
from colbuild.fetch.remembered_digests import remembered_hash
from colbuild.hashing import TreeEntry, tree_digest
from colbuild.spec.sources.choice import chosen, split_files, unmatched
from colbuild.spec.sources.source_kinds import LocalSource


@dataclass(frozen=True)
class Place:
    """A file or folder that exists on this machine.

    Attributes:
        uri: The source that names it.
        path: Where it is.
        inside: The folder that nothing of it may lie outside of, symbolic links followed; None for no limit.
        globs: Which files of a folder are meant; all if empty.
    """

    uri: str
    path: Path
    inside: Path | None
    globs: tuple[str, ...] = ()


def place(uri: str, source: LocalSource, root: Path) -> Place:
    """Returns the path of a local source. A relative one must stay inside the project.

    Raises:
        SourceUnavailableError: It does not exist, or leads out of the project.
    """
    if source.is_absolute:
        return existing(Place(uri, Path(source.path), None))
    return existing(Place(uri, root / source.path, root.resolve()))


def existing(at: Place) -> Place:
    """The place itself, once it is known to exist where it may.

    Raises:
        SourceUnavailableError: It does not exist, may not be read, or leads out of the folder it is confined to.
    """
    trouble = unreadable(at.path)
    if trouble is not None:
        raise SourceUnavailableError(f"{at.uri} cannot be read: {trouble} (looked at {at.path})")
    if not at.path.exists():
        if at.path.is_symlink():
            raise SourceUnavailableError(f"{at.uri} is a symbolic link to {at.path.readlink()}, which does not exist")
        raise SourceUnavailableError(f"{at.uri} does not exist (looked at {at.path})", hint=_near(at.path))
    _check_inside(at, at.path)
    return at


def choosing(at: Place) -> Place:
    """The place, with the choice of files that its URI holds.

    Raises:
        SourceUnavailableError: Files are to be chosen of what is no folder.
    """
    plain, globs = split_files(at.uri)
    if globs and not at.path.is_dir():
        raise SourceUnavailableError(
            f"{plain} is a file, and 'files: {', '.join(globs)}' chooses files of a folder",
            hint="remove 'files', or name the folder in 'source'",
            key="files",
        )
    return replace(at, globs=globs)


def digest(at: Place, downloads: Path) -> str:
    """The sha256 of a file's content, or the tree digest of a folder's files; hidden files do not count.

    Of a folder of which files are chosen, only these count.

    Raises:
        SourceUnavailableError: It cannot be read, is empty, or holds something other than files and folders.
    """
    try:
        if at.path.is_dir():
            return tree_digest(_entries(at, downloads))
        if not at.path.is_file():
            raise SourceUnavailableError(f"{at.uri} is neither a file nor a folder ({at.path})")
        names = split_names(at.path.name)
        if names:
            return tree_digest([_part(at, name, downloads) for name in names])
        return remembered_hash(at.path, downloads)
    except OSError as error:
        raise _unreadable(at, error) from error


def listed(at: Place, downloads: Path) -> tuple[TreeEntry, ...]:
    """The files of a folder that its digest counts. Raises what `digest` raises."""
    try:
        return _entries(at, downloads)
    except OSError as error:
        raise _unreadable(at, error) from error


def _entries(at: Place, downloads: Path) -> tuple[TreeEntry, ...]:
    files = _chosen(at, dict(_files(at)))
    if not files:
        raise SourceUnavailableError(f"{at.uri} is a folder without any files ({at.path})")
    return tuple(TreeEntry(name, size, remembered_hash(at.path / name, downloads)) for name, size in files.items())


def _unreadable(at: Place, error: OSError) -> SourceUnavailableError:
    return SourceUnavailableError(f"{at.uri} cannot be read: {error.strerror or error} ({error.filename})")


def _part(at: Place, name: str, downloads: Path) -> TreeEntry:
    """One of the files that a split one is made of."""
    path = at.path.with_name(name)
    if not path.is_file():
        raise SourceUnavailableError(
            f"{at.uri} is one of several files, and {name} is not beside it",
            hint="get all of them, or join them with 'gguf-split --merge' of llama.cpp",
        )
    _check_inside(at, path)
    return TreeEntry(name, path.stat().st_size, remembered_hash(path, downloads))


def _chosen(at: Place, sizes: dict[str, int]) -> dict[str, int]:
    names = chosen(sizes, at.globs)
    if sizes and not names:
        message, hint = unmatched(at.globs, list(sizes))
        raise SourceUnavailableError(f"{split_files(at.uri)[0]}: {message}", hint=hint, key="files")
    return {name: sizes[name] for name in names}


def _files(at: Place) -> Iterator[tuple[str, int]]:
    """Relative path and size of each file. What begins with a dot is left out: .git and caches change by themselves.

    Links to files are followed, as a hub's cache is made of them; links to folders are not, as they may go in circles.
    """
    pending = [at.path]
    while pending:
        folder = pending.pop()
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
                continue
            if entry.is_symlink():
                _check_inside(at, path)
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                kind = "a link to a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
                raise SourceUnavailableError(f"{path}, in {at.uri}, is {kind}; only files and folders can be used")
            yield path.relative_to(at.path).as_posix(), status.st_size


def _check_inside(at: Place, path: Path) -> None:
    if at.inside is not None and not path.resolve().is_relative_to(at.inside):
        raise SourceUnavailableError(
            f"{path} is a symbolic link out of the project, to {path.resolve()}",
            hint="write the absolute path in the spec to allow it",
        )


def _near(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return None
    close = difflib.get_close_matches(path.name, names, n=3)
    return f"Did you mean {' or '.join(close)}?" if close else None
