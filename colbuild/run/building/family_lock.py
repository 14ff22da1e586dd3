"""Brings a family's lock up to date: for `colbuild lock`, and before a build."""

from __future__ import annotations

from dataclasses import dataclass, replace

from colbuild.errors import BuildError
from colbuild.events import Listener, Notice
from colbuild.plan.family_plan import FamilyPlan, Workspace, silent
from colbuild.plan.lock.lock import LockMode, LockState
from colbuild.plan.lock.lock_file import Lock, LockedSource, lock_error, write_lock
from colbuild.plan.lock.locked_chain import lock_of
from colbuild.plan.lock.named_sources import source_uris
from colbuild.plan.planning import check_possible, make_plan, plan_sources
from colbuild.plan.remembered import ansnet_config
from colbuild.spec import LoadedFamily


@dataclass(frozen=True)
class Relocked:
    """The result of locking a family.

    Attributes:
        before: How the lock stood.
        lock: What it holds now.
        written: Whether that changed the file.
    """

    before: LockState
    lock: Lock
    written: bool


def lock_family(loaded: LoadedFamily, workspace: Workspace, listener: Listener = silent) -> Relocked:
    """Brings a family's lock up to date; fetches the sources whose content is not known yet.

    Raises:
        SpecError: A size or shape cannot be, or a newer colbuild wrote the lock.
        SourceUnavailableError: A source is unavailable.
        BuildError: The AnsNet's architecture is not supported, or the disk refuses.
    """
    plan = make_plan(loaded, workspace, listener)
    check_possible(plan)
    lock = _current(plan, workspace, listener)
    return Relocked(plan.lock, lock, write_lock(plan.lock.path, lock))


def refreshed(plan: FamilyPlan, workspace: Workspace, listener: Listener) -> FamilyPlan:
    """A plan whose lock is up to date, unless it is to be used as it is.

    Raises:
        SpecError: The lock cannot be read: what it pinned is not to be lost unseen.
    """
    state = plan.lock
    if state.mode is not LockMode.REFRESH or state.up_to_date:
        return plan
    if state.problem is not None:
        raise lock_error(state.problem)
    lock = _current(plan, workspace, listener)
    try:
        write_lock(state.path, lock)
    except BuildError as error:
        # A user who may not write beside the spec can build all the same.
        listener(Notice(f"the lock is not written: {error.message}"))
        return plan
    listener(Notice(f"wrote {state.name}"))
    return replace(plan, lock=replace(state, lock=lock, differences=(), pins=True))


def _current(plan: FamilyPlan, workspace: Workspace, listener: Listener) -> Lock:
    """The lock as it should be; a source whose content is not known is fetched."""
    from colbuild.fetch.fetching import origin

    store, sources, family = workspace.store, plan_sources(plan, workspace), plan.loaded.family
    contents = {}
    for uri in source_uris(family):
        digest = sources.digest(uri)
        if digest is None:
            store.prepare()
            digest = sources.fetch(uri, listener).digest
        pin = sources.locked.get(uri)
        kept = pin.origin if pin is not None and pin.digest == digest else {}
        contents[uri] = LockedSource(digest, kept or origin(uri, downloads=store.downloads))
    config = ansnet_config(plan.loaded, store, sources, plan.lock, listener)
    return lock_of(family, config, plan.chain, contents)
