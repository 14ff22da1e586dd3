"""The collector: finds unused results, and removes them on request.

Needed is what a root lists (`colbuild.store.collecting.roots`), what is pinned, and what is leased
(`colbuild.store.leases`). Where the project of a root is nowhere to be found, the collector refuses, unless it was last
seen long ago or may be forgotten. Builds may run meanwhile: what they make is in drafts or leased, what they find they
claim. Garbage is moved to the store's `tmp` while no build can claim it, and deleted afterwards; if that is interrupted,
the next build clears the rest away.

Action records stay although their results go: they are small, and tell what a run is going to take.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from colbuild.errors import BuildError
from colbuild.store.collecting.garbage import DEFAULTS, Collected, Garbage, Kind, Policy, is_over, runs_of, survey
from colbuild.store.collecting.roots import Noted, Standing, note_sighting, read_roots
from colbuild.store.durable_files import storage_errors
from colbuild.store.leases import LEASE, alone, is_held
from colbuild.store.locks import hold, scratch_path
from colbuild.store.store import Store
from colbuild.units import format_duration


def collect(store: Store, policy: Policy = DEFAULTS, *, delete: bool = False, now: float | None = None) -> Collected:
    """Finds what nobody needs in a store; removes it if `delete` says so.

    Args:
        store: The store, which need not exist.
        policy: How long what nobody needs is kept.
        delete: Without it nothing is written.
        now: The time, in seconds since 1970.

    Raises:
        BuildError: A root is damaged, or its project cannot be found; results would go though no build has noted yet what it
            needs; a build runs and the lease is shorter than usual; the disk refuses.
    """
    moment = time.time() if now is None else now
    with storage_errors(store.root):
        if not delete:
            return survey(store, policy, moment)
        if not store.root.exists():
            return Collected((), (), (), 0, 0, removed=True, rootless=False)
        store.prepare()
        with scratch_path(store.layout.folder("tmp")) as trash:
            trash.mkdir()
            with alone(store.layout):
                found = survey(store, policy, moment)
                running = [path.stem for path in runs_of(store) if is_held(path)]
                if running and policy.lease < LEASE:
                    raise BuildError(
                        f"a build is running ({', '.join(running)}), and only the lease keeps its results",
                        hint="wait for its end, or do not shorten the lease",
                    )
                if found.rootless:
                    raise BuildError(
                        f"no build has recorded its results in {store.root} yet: everything would be removed",
                        hint="run 'colbuild build' in each project that uses this store (quick if nothing has changed); "
                        "if no project uses it, remove the folder",
                    )
                noted = read_roots(store)
                for one in noted:
                    if one.standing is Standing.LIVES:
                        note_sighting(store, one, moment)
                if found.lost:
                    raise _lost_error(found.lost, moment)
                gone = tuple(item for item in found.garbage if _move(store, item, trash))
                for one in noted:
                    if is_over(one, policy, moment):
                        one.path.unlink(missing_ok=True)
        return replace(found, garbage=gone, removed=True)


def _lost_error(lost: Sequence[Noted], now: float) -> BuildError:
    told = "\n".join(
        f"  {one.root.family}: {one.root.lock}, last seen {format_duration(max(0.0, now - one.last_seen))} ago"
        for one in lost
    )
    one = len(lost) == 1
    return BuildError(
        f"{'a project' if one else f'{len(lost)} projects'} that this store keeps results for cannot be found:\n{told}",
        hint="run 'colbuild build' in a project that was moved, or mount the disk of a missing one; "
        f"'colbuild cache gc --delete --forget' removes what only {'it needs' if one else 'they need'}",
    )


# -- removing ---------------------------------------------------------------------------------------------------------


class _BusyError(Exception):
    """Somebody holds the lock."""


def _busy() -> None:
    raise _BusyError


def _lock_of(store: Store, item: Garbage) -> Path | None:
    """The lock under which a build works at this place."""
    if item.kind is Kind.PARTIAL:
        return store.layout.lock(item.name)
    return item.path.parent.with_suffix(".lock") if item.kind is Kind.DOWNLOAD else None


def _move(store: Store, item: Garbage, trash: Path) -> bool:
    """Moves garbage out of everybody's way, unless somebody works on it; says whether it did."""
    lock = _lock_of(store, item)
    target = trash / f"{item.kind}-{item.name}-{item.path.name}"
    try:
        if lock is None:
            return _rename(item.path, target)
        with hold(lock, _busy):
            return _rename(item.path, target)
    except _BusyError:
        return False


def _rename(path: Path, target: Path) -> bool:
    try:
        path.rename(target)
    except FileNotFoundError:
        return False
    return True
