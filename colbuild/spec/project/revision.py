"""A project at a git revision: its YAML files in a separate folder. Nothing is checked out or changed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from colbuild.bounds import REVISION_BYTES, SPEC_BYTES
from colbuild.errors import SpecError
from colbuild.spec.project.git import GitError, complaint, git
from colbuild.spec.project.load import LoadedFamily, load_family
from colbuild.spec.sources.source_kinds import is_plain_path
from colbuild.units import format_bytes

_REGULAR = ("100644", "100755")
_LINE = 200
"""Bytes that the line before a blob's content has at most."""


@dataclass(frozen=True)
class Revision:
    """A commit, as it was asked for.

    Attributes:
        asked: A branch, a tag, HEAD~2, ….
        commit: The commit's full hash.
    """

    asked: str
    commit: str

    def __str__(self) -> str:
        return self.asked if self.commit.startswith(self.asked) else f"{self.asked} ({self.commit[:8]})"


def find_revision(root: Path, asked: str) -> Revision:
    """The commit that a name stands for in the repository that a project lies in.

    Raises:
        GitError: There is no git, no repository around the project, or no such commit.
    """
    inside = git(root, "rev-parse", "--is-inside-work-tree")
    if inside.returncode != 0 or inside.stdout.strip() != b"true":
        why = complaint(inside)
        told = "" if "not a git repository" in why or not why else f": {why}"
        message = (
            f"{root} is not in a git repository that can be read{told}"
            if told
            else f"{root} is not in a git repository"
        )
        raise GitError(message, hint="use a revision of the project's own repository")
    found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{asked}^{{commit}}")
    if not asked or found.returncode != 0:
        raise GitError(
            f"git has no revision '{asked}'",
            hint="name a branch, a tag, a commit's hash or HEAD~1, and fetch a remote branch first",
        )
    return Revision(asked, found.stdout.decode().strip())


def load_at(loaded: LoadedFamily, revision: Revision) -> LoadedFamily:
    """A family as it was at a revision, with the recipes and profiles of then; its root is that of now.

    Raises:
        GitError: Git cannot read it.
        SpecError: The family's file was not there, or has mistakes.
    """
    name = loaded.path.relative_to(loaded.root).as_posix()
    with _files(loaded.root, revision) as (folder, names):
        if name not in names:
            others = [other for other in names if PurePosixPath(other).parent == PurePosixPath(name).parent]
            hint = f"there were: {', '.join(others[:5])}" if others else "compare with a later revision"
            raise SpecError(f"{name} is not in {revision}", hint=hint)
        try:
            before = load_family(folder / name)
        except SpecError as error:
            raise SpecError(f"{name} of {revision} cannot be read: {error.message}", hint=error.hint) from None
    return LoadedFamily(before.family, loaded.path, loaded.root, before.places)


def changed_since(root: Path, revision: Revision, paths: Sequence[str]) -> frozenset[str]:
    """Returns the files and folders of a project that git has seen change since a revision.

    What git does not follow counts as unchanged: nobody knows what it was.
    """
    return frozenset(path for path in paths if _changed(root, revision, path))


def _changed(root: Path, revision: Revision, path: str) -> bool:
    options = ("--quiet", "--no-ext-diff", "--no-textconv", "--ignore-submodules=all")
    done = git(root, "diff", *options, revision.commit, "--", path)
    if done.returncode not in (0, 1):
        raise _unreadable(revision, complaint(done))
    return done.returncode == 1


@contextmanager
def _files(root: Path, revision: Revision) -> Iterator[tuple[Path, list[str]]]:
    """A temporary folder with every YAML file of a project, and their names. Links are left out: they could lead anywhere."""
    done = git(root, "ls-tree", "-r", "-l", "-z", revision.commit, "--", ".")
    if done.returncode != 0:
        raise _unreadable(revision, complaint(done))
    blobs: dict[str, str] = {}
    total = 0
    for entry in filter(None, done.stdout.split(b"\0")):
        about, _, raw = entry.partition(b"\t")
        mode, _, blob, size = about.decode().split()
        # A tree made by hand may hold any name.
        name = os.fsdecode(raw)
        if mode not in _REGULAR or not name.endswith((".yaml", ".yml")) or not is_plain_path(name):
            continue
        if not size.isdecimal():
            # git says "BAD" of an object that it cannot find.
            raise _unreadable(revision, f"the content of {name} is missing")
        if int(size) <= SPEC_BYTES:
            blobs[name] = blob
            total += int(size)
    if total > REVISION_BYTES:
        most = format_bytes(REVISION_BYTES)
        raise _unreadable(revision, f"its YAML files have {format_bytes(total)}; the limit is {most}")
    with tempfile.TemporaryDirectory(prefix="colbuild-since-") as folder:
        for name, content in zip(blobs, _contents(root, revision, blobs), strict=True):
            path = Path(folder) / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except OSError as error:
                raise _unreadable(revision, f"{name} cannot be written: {error.strerror}") from None
        yield Path(folder), sorted(blobs)


def _contents(root: Path, revision: Revision, blobs: Mapping[str, str]) -> Iterator[bytes]:
    """The contents of blobs, all read by one process."""
    if not blobs:
        return
    answer = git(root, "cat-file", "--batch", given="".join(f"{blob}\n" for blob in blobs.values()).encode()).stdout
    at = 0
    for name in blobs:
        line, _, _ = answer[at : at + _LINE].partition(b"\n")
        try:
            _, kind, length = line.split()
            size = int(length)
        except ValueError:
            raise _unreadable(revision, f"the content of {name} is missing") from None
        at += len(line) + 1
        if kind != b"blob" or len(answer) < at + size:
            raise _unreadable(revision, f"the content of {name} is damaged")
        yield answer[at : at + size]
        at += size + 1


def _unreadable(revision: Revision, why: str) -> GitError:
    return GitError(
        f"git cannot read {revision}: {why}",
        hint="run 'git fetch': a shallow or partial clone lacks parts of the history",
    )
