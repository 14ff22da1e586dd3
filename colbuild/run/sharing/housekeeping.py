"""The store's housekeeping: what lies in it, whether it is whole, what is kept and removed, and what is shared."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colbuild.errors import BuildError
from colbuild.fetch.downloads import Record
from colbuild.hashing import hash_file
from colbuild.plan.changes.former import former_records
from colbuild.plan.changes.states import State
from colbuild.plan.drawing.target import find_step
from colbuild.plan.family_plan import STORE_VARIABLE, FamilyPlan, Workspace, remote_url
from colbuild.plan.planning import unbuilt
from colbuild.progress import Progress, Report, silent
from colbuild.run.sharing.sharing import Pulled, pull_family, push_family
from colbuild.run.sharing.stored import (
    Listing,
    Maker,
    StoredDownload,
    StoredObject,
    fetched_contents,
    list_store,
    makers,
)
from colbuild.store import Store, open_store
from colbuild.store.collecting.collector import Collected, Garbage, Kind, Policy, collect
from colbuild.store.collecting.disk_use import size_of
from colbuild.store.collecting.pins import SHORTEST_PREFIX, Pin, is_prefix, pin, unpin
from colbuild.store.collecting.roots import read_roots
from colbuild.store.durable_files import storage_errors
from colbuild.store.locks import hold
from colbuild.store.objects import published, read_tree
from colbuild.store.remote.remote_store import Pushed

__all__ = [
    "Checked",
    "Collected",
    "Damaged",
    "Garbage",
    "Kind",
    "Listing",
    "Pin",
    "Policy",
    "Pulled",
    "Pushed",
    "StoredDownload",
    "StoredObject",
    "collect",
    "find_store",
    "list_store",
    "pin_digest",
    "pin_result",
    "pull_family",
    "push_family",
    "required_remote",
    "unpin",
    "verify_store",
]

_STORE = ".colbuild"


@dataclass(frozen=True)
class Damaged:
    """Something that is not what it was when it was made.

    Attributes:
        name: The digest of a result, or the URI of a source.
        steps: Ids of the steps that make it.
        families: The families whose steps these are.
        problem: What is wrong with it, and where it lies now.
    """

    name: str
    steps: tuple[str, ...]
    families: tuple[str, ...]
    problem: str


@dataclass(frozen=True)
class Checked:
    """What reading everything found: how many results and sources were read, their bytes, and what is damaged."""

    objects: int
    downloads: int
    size: int
    damaged: tuple[Damaged, ...]


def find_store(option: Path | None) -> Store:
    """The store that is meant where no family is named.

    That is what was asked for, else `COLBUILD_STORE`, else `.colbuild` in this folder or the next above that has one.

    Raises:
        BuildError: The path holds something else.
    """
    configured = os.environ.get(STORE_VARIABLE)
    if option is not None or configured:
        return open_store(option or Path(configured or ""), former_records)
    here = Path.cwd()
    for folder in (here, *here.parents):
        try:
            found = (folder / _STORE / "format").is_file()
        except OSError:
            # One that may not be read is not passed over: the next one above may be somebody else's.
            found = True
        if found:
            return open_store(folder / _STORE, former_records)
    return open_store(here / _STORE, former_records)


def required_remote(option: str | None) -> str:
    """The remote that a command is about.

    Raises:
        BuildError: Neither the option nor `COLBUILD_REMOTE` names one.
    """
    url = remote_url(option)
    if url is None:
        raise BuildError(
            "no remote is named",
            hint="give --remote URL or set COLBUILD_REMOTE, such as s3://bucket/path or file:///mnt/share/colbuild",
        )
    return url


# -- pins -------------------------------------------------------------------------------------------------------------


def pin_result(plan: FamilyPlan, workspace: Workspace, name: str) -> tuple[Pin, bool]:
    """Pins what a step of a family made, given by its id or by what it makes; also says whether that is new.

    Raises:
        UnknownNameError: The family has no such step, or several.
        BuildError: Its result is not in the store, or the disk refuses.
    """
    family = plan.loaded.family.name
    step = find_step(plan.graph, name, unbuilt(plan.chain, plan.graph))
    [planned] = [planned for planned in plan.steps if planned.step.id == step.id]
    if planned.state is not State.CACHED or planned.output is None:
        raise BuildError(
            f"there is nothing to pin yet: {step.id} of {family} is not in the store ({planned.why})",
            hint=f"build it first: colbuild build --target '{name}'",
        )
    wanted = Pin(planned.output, " ".join(name.split()), step.id, family)
    return wanted, pin(workspace.store, wanted)


def pin_digest(store: Store, prefix: str) -> tuple[Pin, bool]:
    """Pins the result whose digest begins so; also says whether that is new.

    Raises:
        BuildError: No result has such a digest, several have, or the disk refuses.
    """
    digest = _one_digest(store, prefix)
    maker = makers(store, read_roots(store)).get(digest, Maker())
    step, family = min(maker.steps, default=""), min(maker.families, default="")
    wanted = Pin(digest, prefix, step, family)
    return wanted, pin(store, wanted)


def _one_digest(store: Store, prefix: str) -> str:
    if not is_prefix(prefix):
        raise BuildError(
            f"'{prefix}' is no digest",
            hint=f"give at least its first {SHORTEST_PREFIX} digits, as 'colbuild cache ls' shows",
        )
    found = [digest for digest in published(store.layout) if digest.startswith(prefix)]
    if len(found) != 1:
        problem = "several results begin" if found else "no result in the store begins"
        raise BuildError(f"{problem} with {prefix}", hint="'colbuild cache ls' shows the digests")
    return found[0]


# -- verifying --------------------------------------------------------------------------------------------------------


def verify_store(store: Store, names: Sequence[str] = (), report: Report = silent) -> Checked:
    """Reads every byte of the results and fetched sources in a store; what is damaged is moved to the quarantine.

    Args:
        store: The store, which need not exist.
        names: Beginnings of digests, for these results alone.
        report: Told the bytes read so far.

    Raises:
        BuildError: A name stands for nothing or for several results, or the disk refuses.
    """
    digests = [_one_digest(store, name) for name in names] if names else list(published(store.layout))
    contents = [] if names else list(fetched_contents(store))
    sizes = {digest: tree.size for digest in digests if (tree := read_tree(store.layout, digest)) is not None}
    total = sum(sizes.values()) + sum(size_of(content) for content, _ in contents)
    known = makers(store, read_roots(store))
    damaged: list[Damaged] = []
    done = objects = 0
    for digest in digests:
        report(Progress(done, total, "bytes", f"reading {digest[:12]}"))
        problem = _damage(store, digest)
        if problem is not None:
            maker = known.get(digest, Maker())
            damaged.append(Damaged(digest, tuple(sorted(maker.steps)), tuple(sorted(maker.families)), problem))
        objects += 1
        done += sizes.get(digest, 0)
    for content, record in contents:
        report(
            Progress(done, total, "bytes", f"reading {record.uri if record is not None else content.parent.name[:12]}")
        )
        size = size_of(content)
        problem = _damaged_content(store, content, record)
        if problem is not None:
            damaged.append(Damaged(record.uri if record is not None else content.parent.name, (), (), problem))
        done += size
    report(Progress(total, total, "bytes"))
    return Checked(objects, len(contents), done, tuple(damaged))


def _damage(store: Store, digest: str) -> str | None:
    """What is wrong with a result; it lies in the quarantine then. One that was collected meanwhile is not damaged."""
    if not store.layout.object(digest).exists() or store.verify(digest) is None:
        return None
    return store.check_content(digest) if store.layout.object(digest).exists() else None


def _damaged_content(store: Store, content: Path, record: Record | None) -> str | None:
    """What is wrong with a source that was fetched; it lies in the quarantine then, and is fetched again when needed."""
    with storage_errors(content), hold(content.parent.with_suffix(".lock")):
        problem = _other_content(content, record)
        if problem is None or not content.exists():
            return None
        place = store.layout.folder("quarantine") / f"download-{content.parent.name}-{uuid.uuid4().hex[:8]}"
        content.rename(place)
        return f"{problem}; set aside as {place}"


def _other_content(content: Path, record: Record | None) -> str | None:
    if record is None:
        return "its record is missing or damaged"
    # A folder lies in `content` under a name of its own.
    roots = sorted(content.iterdir()) if record.is_folder and content.is_dir() else [content]
    if len(roots) != 1:
        return "it is not one folder"
    for entry in record.files:
        path = roots[0] / entry.path
        try:
            if path.stat().st_size != entry.size or hash_file(path) != entry.sha256:
                return f"the content of {entry.path} has changed"
        except FileNotFoundError:
            return f"{entry.path} is missing"
        except OSError as error:
            return f"{entry.path} cannot be read ({error.strerror})"
    return None
