"""What a plan reads of sources and remembers, as it stays the same as long as their content does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from colbuild.events import Listener, Notice
from colbuild.fetch.contents import Sources, is_fetched
from colbuild.plan.lock.lock import LockState
from colbuild.plan.shapes.bridge_shape import tokenizer_source
from colbuild.plan.shapes.package_size import trained_tokenizer
from colbuild.spec.model.bridge import TrainedTokenizer
from colbuild.spec.model.family import Family
from colbuild.store import Store

T = TypeVar("T")


def packed_tokenizer(
    family: Family, store: Store, sources: Sources, state: LockState, listener: Listener
) -> int | None:
    """How many bytes the tokenizer takes in a package, where a DesNet is sized by its package; None if nothing tells.

    It follows from the content of a source, or is in the lock, so that the same spec gives the same shapes everywhere.
    """
    lock = state.lock
    if all(desnet.max_package is None for desnet in family.desnets):
        return None
    if lock is not None and state.pins:
        return lock.tokenizer
    if family.bridge is not None and isinstance(family.bridge.tokenizer, TrainedTokenizer):
        return trained_tokenizer(family.bridge.tokenizer.train)
    uri = tokenizer_source(family.bridge) or family.ansnet.source
    if lock is not None and lock.tokenizer is not None and lock.measures(uri, sources.digest(uri)):
        return lock.tokenizer

    def read(path: Path) -> int:
        from colbuild.arch.files.tokenizer_size import tokenizer_bytes

        return tokenizer_bytes(path) or 0

    what = "the tokenizer, which packages hold and sizes"
    return remembered("tokenizer", int, uri, read, what, store, sources, listener) or None


def remembered(
    kind: str,
    form: type[T],
    uri: str,
    read: Callable[[Path], T],
    what: str,
    store: Store,
    sources: Sources,
    listener: Listener,
) -> T:
    """What a source's files say: from memory where their content is known and came over the network, else from them.

    Args:
        kind: What is read of them.
        form: Its type.
        uri: The source.
        read: Reads it.
        what: What is fetched for it, as messages say it.
        store: Where it is remembered.
        sources: Where the files are.
        listener: Told what happens.
    """
    digest = sources.digest(uri)
    known: Any = store.remembered(kind, digest) if digest else None
    if isinstance(known, form):
        return known
    if is_fetched(uri):
        listener(Notice(f"fetching {what} follows from: {uri}"))
        store.prepare()
    fetched = sources.fetch(uri, listener)
    with sources.reading(uri):
        found = read(fetched.path)
    if is_fetched(uri):
        store.remember(kind, fetched.digest, found)
    return found
