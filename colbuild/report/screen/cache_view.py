"""Prints the contents of the store and the results of `colbuild cache`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from colbuild.units import format_bytes, format_duration

if TYPE_CHECKING:
    from colbuild.run.sharing.listing import Listing, StoredObject
    from colbuild.run.sharing.sharing import Pulled
    from colbuild.run.sharing.verifying import Checked
    from colbuild.store import Store
    from colbuild.store.collecting.garbage import Collected
    from colbuild.store.collecting.pins import Pin
    from colbuild.store.remote.remote_store import Pushed

LISTING_FORMAT: Final = "colbuild.cache-ls.v1"
COLLECTED_FORMAT: Final = "colbuild.cache-gc.v1"
CHECKED_FORMAT: Final = "colbuild.cache-verify.v1"
_NONE: Final = "–"
_DIGITS: Final = 12
_FEW: Final = 3
_NOUNS: Final = {
    "object": ("result", "results"),
    "download": ("source", "sources"),
    "partial": ("interrupted step", "interrupted steps"),
    "quarantine": ("damaged result", "damaged results"),
    "compiled": ("cache of compilers", "caches of compilers"),
    "run": ("record of a build", "records of builds"),
    "log": ("log", "logs"),
}

_NAMED: Final = ("object", "download", "partial", "quarantine", "compiled")
"""Kinds of garbage that are worth a line each; of records and logs the number is enough."""

# -- ls ---------------------------------------------------------------------------------------------------------------


def print_listing(listing: Listing, console: Console, now: float | None = None) -> None:
    """Prints what takes space in a store, the largest first."""
    if not listing.exists:
        console.print(f"There is no store at {listing.root} yet; 'colbuild build' makes one.", soft_wrap=True)
        return
    moment = time.time() if now is None else now
    if listing.objects:
        table = _table("digest", "size", "made by", "family", "used", "kept by")
        for stored in listing.objects:
            kept = _keepers(stored)
            table.add_row(
                stored.digest[:_DIGITS],
                format_bytes(stored.size),
                _listed(stored.steps) or _NONE,
                ", ".join(stored.families) or _NONE,
                ago(moment - stored.used_at),
                kept or _NONE,
                style="" if kept else "dim",
            )
        console.print()
        console.print(table)
    if listing.downloads:
        table = _table("source", "size", "kept by")
        for download in listing.downloads:
            kept = _listed(_short(download.locks)) or ("lease" if download.leased else "")
            table.add_row(
                download.uri or "unknown, its record is gone",
                format_bytes(download.size),
                kept or _NONE,
                style="" if kept else "dim",
            )
        console.print()
        console.print(table)
    console.print()
    for line in _totals(listing):
        console.print(line, soft_wrap=True)


def _totals(listing: Listing) -> Iterable[str]:
    objects, downloads = listing.objects, listing.downloads
    size = sum(stored.size for stored in objects)
    shared = sum(stored.shared for stored in objects)
    also = f" ({format_bytes(shared)} of it shared with out/)" if shared else ""
    yield f"{listing.root}: {_count(len(objects), 'object')}, {format_bytes(size)}{also}; " + (
        f"{_count(len(downloads), 'download')}, {format_bytes(sum(download.size for download in downloads))}."
    )
    if listing.interrupted:
        yield f"Interrupted steps can continue from {format_bytes(listing.interrupted)}."
    if listing.quarantined:
        yield f"Damaged results take {format_bytes(listing.quarantined)} in quarantine/."
    if listing.compiled:
        yield f"Compiled code takes {format_bytes(listing.compiled)} in compiled/; it may be removed at any time."
    for lock in listing.ended:
        yield f"{lock} is gone: it no longer keeps results."
    for lock in listing.lost:
        yield f"{lock} cannot be found: 'colbuild cache gc --forget' lists the results that only it keeps."
    for pin in listing.missing:
        yield f"Pinned as '{pin.name}' but not in the store: {pin.digest[:_DIGITS]} ({pin.step or 'unknown step'})."
    free = sum(stored.size for stored in objects if not stored.stays)
    if free:
        yield f"{format_bytes(free)} of results are unused: 'colbuild cache gc' lists them."


def _keepers(stored: StoredObject) -> str:
    keepers = [*_short(stored.locks)]
    if stored.pin is not None:
        keepers.insert(0, f"pin '{stored.pin}'")
    if stored.leased and not keepers:
        keepers.append("lease")
    return _listed(keepers)


def _short(locks: Sequence[str]) -> list[str]:
    """Locks as one would name them here: relative to this folder, if they lie in it."""
    found = []
    for lock in locks:
        try:
            found.append(str(Path(lock).relative_to(Path.cwd())))
        except ValueError:
            found.append(lock)
    return found


def listing_to_json(listing: Listing) -> dict[str, Any]:
    """Returns the contents of a store as JSON values."""
    return {
        "format": LISTING_FORMAT,
        "store": str(listing.root),
        "exists": listing.exists,
        "objects": [{**asdict(stored), "stays": stored.stays} for stored in listing.objects],
        "downloads": [asdict(download) for download in listing.downloads],
        "interrupted": listing.interrupted,
        "quarantined": listing.quarantined,
        "compiled": listing.compiled,
        "missing_pins": [asdict(pin) for pin in listing.missing],
        "ended_locks": list(listing.ended),
        "lost_locks": list(listing.lost),
    }


# -- gc ---------------------------------------------------------------------------------------------------------------


def print_collected(listing: Listing, collected: Collected, console: Console) -> None:
    """Prints what nobody needs, or what was removed; `listing` is of the store as it was before, for the names."""
    if not listing.exists:
        console.print(f"There is no store at {listing.root} yet, so there is nothing to remove.", soft_wrap=True)
        return
    verb = "removed" if collected.removed else "would go"
    shown = [item for item in collected.garbage if item.kind.value in _NAMED]
    if shown:
        table = _table("kind", "name", "made by", "size", "frees")
        makers = {stored.digest: _listed(stored.steps) for stored in listing.objects}
        makers |= {download.name: download.uri for download in listing.downloads}
        for item in shown:
            sizes = (format_bytes(item.size), format_bytes(item.freed))
            table.add_row(
                _NOUNS[item.kind.value][0],
                item.name[:_DIGITS],
                makers.get(item.name.partition("-")[0]) or _NONE,
                *sizes,
            )
        console.print()
        console.print(table)
        console.print()
    for root in collected.ended:
        console.print(
            f"{root.lock} is gone: results that only {root.family} needed are no longer kept.", soft_wrap=True
        )
    for noted in collected.lost:
        last = ago(max(0.0, time.time() - noted.last_seen))
        console.print(
            f"{noted.root.lock} of {noted.root.family} cannot be found, last seen {last}: its results are kept. With "
            "--delete nothing is removed until it is found, or --forget is given.",
            soft_wrap=True,
        )
    stay = "stays" if collected.kept == 1 else "stay"
    kept = f"{_count(collected.kept, 'object')} ({format_bytes(collected.kept_size)}) {stay}"
    if not collected.garbage:
        console.print(f"Nothing to remove: {kept}.")
        return
    counts = [
        _count(number, kind)
        for kind in _NOUNS
        if (number := sum(item.kind.value == kind for item in collected.garbage))
    ]
    console.print(f"{', '.join(counts)}: {format_bytes(collected.size)} {verb}; {kept}.", soft_wrap=True)
    other = collected.size - collected.freed
    shared = f"; {format_bytes(other)} are still used by files in out/" if other else ""
    frees = "freed" if collected.removed else "would be freed"
    console.print(f"{format_bytes(collected.freed)} {frees} on the disk{shared}.", soft_wrap=True)
    if collected.rootless:
        console.print(
            "No build has recorded its results here yet, so nothing is removed: run 'colbuild build' in each project first.",
            soft_wrap=True,
        )
    elif not collected.removed:
        console.print("This was a dry run: 'colbuild cache gc --delete' removes it.")


def collected_to_json(store: Store, collected: Collected) -> dict[str, Any]:
    """Returns unused or removed results as JSON values."""
    return {
        "format": COLLECTED_FORMAT,
        "store": str(store.root),
        "removed": collected.removed,
        "rootless": collected.rootless,
        "size": collected.size,
        "freed": collected.freed,
        "kept": collected.kept,
        "kept_size": collected.kept_size,
        "ended_locks": [root.lock for root in collected.ended],
        "lost_locks": [noted.root.lock for noted in collected.lost],
        "garbage": [
            {"kind": item.kind.value, "name": item.name, "size": item.size, "freed": item.freed}
            for item in collected.garbage
        ],
    }


# -- verify -----------------------------------------------------------------------------------------------------------


def print_checked(store: Store, checked: Checked, console: Console) -> None:
    """Prints what reading everything found."""
    if not store.root.exists():
        console.print(f"There is no store at {store.root} yet, so there is nothing to verify.", soft_wrap=True)
        return
    for damaged in checked.damaged:
        made = f" ({', '.join(damaged.families)}: {_listed(damaged.steps)})" if damaged.steps else ""
        console.print(f"damaged: {damaged.name}{made}", style="red", soft_wrap=True)
        console.print(f"  {damaged.problem}", soft_wrap=True)
    read = f"Read {_count(checked.objects, 'object')} and {_count(checked.downloads, 'download')}, "
    if not checked.damaged:
        console.print(f"{read}{format_bytes(checked.size)}: none is damaged.")
        return
    console.print(
        f"{read}{format_bytes(checked.size)}: {len(checked.damaged)} damaged and quarantined. "
        "'colbuild build' makes or fetches them again if a family needs them.",
        soft_wrap=True,
    )


def checked_to_json(store: Store, checked: Checked) -> dict[str, Any]:
    """Returns the result of verifying a store as JSON values."""
    return {"format": CHECKED_FORMAT, "store": str(store.root), **asdict(checked)}


# -- pin, push and pull -----------------------------------------------------------------------------------------------


def print_pinned(pin: Pin, fresh: bool, console: Console) -> None:
    """Prints what is kept now."""
    what = f"{pin.family}: {pin.step}" if pin.family else pin.step or "a result"
    done = "Pinned" if fresh else "Was pinned already:"
    console.print(f"{done} {what}, {pin.digest[:_DIGITS]}; 'colbuild cache gc' will keep it.", soft_wrap=True)


def print_unpinned(pin: Pin, console: Console) -> None:
    """Prints what is kept no longer."""
    console.print(f"Unpinned {pin.step or pin.name}, {pin.digest[:_DIGITS]}.", soft_wrap=True)


def print_pushed(pushed: Pushed, url: str, console: Console) -> None:
    """Prints what was put into a remote."""
    console.print(
        f"{url}: sent {_count(pushed.objects, 'object')}, {format_bytes(pushed.bytes)}; "
        f"{pushed.skipped} were there already.",
        soft_wrap=True,
    )
    for step in pushed.differing:
        console.print(f"  {step}: the remote has another result, which stays", soft_wrap=True)
    for step in pushed.damaged:
        console.print(f"  not sent, damaged here: {step}", soft_wrap=True)


def print_pulled(pulled: Pulled, url: str, console: Console) -> None:
    """Prints what came from a remote."""
    console.print(
        f"{url}: got {_count(pulled.objects, 'object')}, {format_bytes(pulled.bytes)}; {pulled.skipped} were here already.",
        soft_wrap=True,
    )
    for line in pulled.rejected:
        console.print(f"  rejected: {line}", style="red", soft_wrap=True)
    if pulled.missing:
        console.print(
            f"It does not have {_listed(pulled.missing, 8)}; 'colbuild build' makes the missing results.",
            soft_wrap=True,
        )


# -- words ------------------------------------------------------------------------------------------------------------


def ago(seconds: float) -> str:
    """Returns the time since an event: "2 h ago"; "just now" for the future."""
    return f"{format_duration(seconds)} ago" if seconds >= 1 else "just now"


def _count(number: int, kind: str) -> str:
    one, many = _NOUNS[kind]
    return f"{number} {one if number == 1 else many}"


def _listed(names: Sequence[str], most: int = _FEW) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="right" if column in ("size", "frees") else "left", no_wrap=column != "made by"
        )
    return table
