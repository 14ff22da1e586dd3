"""A project as it was at a git revision: its YAML files in a folder of their own. Nothing is checked out or changed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from colbuild.errors import ColbuildError, SpecError
from colbuild.spec.load import LoadedFamily, load_family
from colbuild.spec.yaml import MAX_BYTES

_REGULAR = ("100644", "100755")


class RevisionError(ColbuildError):
    """A revision cannot be read: no git, no repository, no such revision."""


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
        RevisionError: There is no git, no repository around the project, or no such commit.
    """
    inside = _git(root, "rev-parse", "--is-inside-work-tree", check=False)
    if inside.returncode != 0 or inside.stdout.strip() != b"true":
        why = _complaint(inside)
        told = "" if "not a git repository" in why or not why else f": {why}"
        message = (
            f"{root} is in no git repository that can be read{told}" if told else f"{root} is in no git repository"
        )
        raise RevisionError(message, hint="a plan is compared with a revision of the project's own repository")
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{asked}^{{commit}}", check=False)
    if not asked or found.returncode != 0:
        raise RevisionError(
            f"git knows no revision '{asked}'",
            hint="a branch, a tag, a commit's hash or HEAD~1; a branch of a remote may have to be fetched first",
        )
    return Revision(asked, found.stdout.decode().strip())


def load_at(loaded: LoadedFamily, revision: Revision) -> LoadedFamily:
    """A family as it was at a revision, with the recipes and profiles of then; its root is that of now.

    Raises:
        RevisionError: Git cannot read it.
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
    """Those of some files and folders of a project whose content git has seen change since a revision.

    What git does not follow counts as unchanged: nobody knows what it was.
    """
    return frozenset(
        path
        for path in paths
        if _git(
            root, "diff", "--quiet", "--no-ext-diff", "--no-textconv", revision.commit, "--", path, check=False
        ).returncode
        == 1
    )


@contextmanager
def _files(root: Path, revision: Revision) -> Iterator[tuple[Path, list[str]]]:
    """A temporary folder with every YAML file of a project, and their names. Links are left out: they could lead anywhere."""
    listed = _git(root, "ls-tree", "-r", "-l", "-z", revision.commit, "--", ".").stdout
    blobs: dict[str, str] = {}
    for entry in filter(None, listed.split(b"\0")):
        about, _, raw = entry.partition(b"\t")
        mode, _, blob, size = about.decode().split()
        name = os.fsdecode(raw)
        if (
            mode in _REGULAR
            and name.endswith((".yaml", ".yml"))
            and int(size) <= MAX_BYTES
            and ".." not in name.split("/")
        ):
            blobs[name] = blob
    with tempfile.TemporaryDirectory(prefix="colbuild-since-") as folder:
        for name, content in zip(blobs, _contents(root, list(blobs.values())), strict=True):
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(folder), sorted(blobs)


def _contents(root: Path, blobs: Sequence[str]) -> Iterator[bytes]:
    """The contents of blobs, all read by one process."""
    if not blobs:
        return
    answer = _git(root, "cat-file", "--batch", given="".join(f"{blob}\n" for blob in blobs).encode()).stdout
    at = 0
    for _ in blobs:
        end = answer.index(b"\n", at)
        size = int(answer[at:end].split()[2])
        yield answer[end + 1 : end + 1 + size]
        at = end + size + 2


def _git(root: Path, *arguments: str, check: bool = True, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Runs git in a folder; nothing it does writes, and its messages are in English."""
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, input=given, capture_output=True, env=environment, check=False)  # noqa: S603
    except FileNotFoundError:
        raise RevisionError("git is not installed, so that no revision can be read") from None
    if check and done.returncode != 0:
        raise RevisionError(f"git cannot read the revision: {_complaint(done)}")
    return done


def _complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[0].removeprefix("fatal: ") if lines else ""
