"""The sources of a family, as its lock pins them."""

from __future__ import annotations

from colbuild.fetch.contents import Sources
from colbuild.fetch.downloads import Pin
from colbuild.plan.lock.lock import LockMode, LockState
from colbuild.plan.lock.named_sources import source_paths
from colbuild.spec import LoadedFamily, Problem, spec_error
from colbuild.spec.model.family import Text
from colbuild.store import Store


def sources_of(loaded: LoadedFamily, store: Store, lock: LockState | None = None) -> Sources:
    """The sources of a family, as its lock pins them.

    Raises:
        SpecError: Two digests are demanded of one source.
    """
    family = loaded.family
    pins: dict[str, str] = {}
    data = family.data
    for path, uri, item in (
        (("ansnet",), family.ansnet.source, family.ansnet),
        (("data", "train"), data.train.content, data.train),
        (("data", "eval"), data.eval.content, data.eval),
    ):
        if item.sha256 is not None and uri is not None and pins.setdefault(uri, item.sha256) != item.sha256:
            message = f"'sha256': {uri} has another sha256 elsewhere in this file"
            raise spec_error(
                [Problem(loaded.places.nearest((*path, "sha256")), message, "write the same value everywhere")]
            )
    places = {uri: loaded.places.nearest(path) for uri, path in source_paths(family).items()}
    beside = {
        uri: {key: loaded.places.known.get((*path[:-1], key)) for key in Text.model_fields}
        for uri, path in source_paths(family).items()
        if path[0] == "data"
    }
    if lock is None or lock.lock is None:
        return Sources(loaded.root, store.downloads, pins, places=places, beside=beside)
    frozen = lock.mode is LockMode.FROZEN
    locked = {
        uri: Pin(source.digest, source.origin, lock.name)
        for uri, source in lock.lock.sources.items()
        # A digest that was written into the spec since then is what the user wants now.
        if frozen or pins.get(uri) in (None, source.digest)
    }
    return Sources(loaded.root, store.downloads, pins, locked, frozen, places, beside)
