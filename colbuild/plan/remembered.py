"""Facts of sources that a plan reads and remembers while their content stays the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from colbuild.arch import checked_structure, read_structure
from colbuild.events import Listener, Notice
from colbuild.fetch.contents import Sources, is_fetched
from colbuild.plan.lock.lock import LockState
from colbuild.plan.shapes.bridge_shape import tokenizer_source
from colbuild.plan.shapes.package_size import trained_tokenizer
from colbuild.spec import LoadedFamily
from colbuild.spec.model.bridge import TrainedTokenizer
from colbuild.spec.model.family import Family
from colbuild.store import Store

T = TypeVar("T")


def ansnet_config(
    loaded: LoadedFamily, store: Store, sources: Sources, state: LockState, listener: Listener
) -> Mapping[str, Any]:
    """The AnsNet's config.json: from the lock or from memory where its content is known, else from its files.

    What lies on this machine is read anew each time, which is quick, so that a plan writes nothing.
    """
    uri = loaded.family.ansnet.source
    digest = sources.digest(uri)
    if state.lock is not None and state.lock.describes(uri, digest):
        # An older colbuild may have locked what this one refuses.
        with sources.reading(uri):
            checked_structure(state.lock.ansnet)
        return state.lock.ansnet

    def read(path: Path) -> dict[str, Any]:
        from colbuild.fetch.fetching import read_config

        return read_config(path, lambda text: listener(Notice(text)))

    # Older colbuilds remembered a whole config.json as "config".
    config = remembered(
        "settings", dict, uri, read, "the AnsNet, whose shape everything else", store, sources, listener
    )
    with sources.reading(uri):
        read_structure(config)
    return config


def bridge_vocabulary(
    loaded: LoadedFamily, store: Store, sources: Sources, state: LockState, listener: Listener
) -> int | None:
    """Returns the number of ids of the bridge's tokenizer, on which its shape depends; None if the bridge names none."""
    uri = tokenizer_source(loaded.family.bridge)
    if uri is None:
        return None
    if state.lock is not None and state.lock.counts(uri, sources.digest(uri)):
        return state.lock.vocabulary

    def read(path: Path) -> int:
        from colbuild.arch.files.vocabulary import read_vocabulary

        return read_vocabulary(path)

    return remembered("vocabulary", int, uri, read, "the tokenizer, whose size every shape", store, sources, listener)


def packed_tokenizer(
    family: Family, store: Store, sources: Sources, state: LockState, listener: Listener
) -> int | None:
    """Returns the bytes of the tokenizer in a package, if a DesNet is sized by its package; None if unknown.

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
    """Returns a fact of a source's files: from memory for known remote content, else from the files.

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
