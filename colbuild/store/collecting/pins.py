"""Pins: results that are kept even if no lock needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from colbuild.errors import BuildError
from colbuild.store.durable_files import checked, read_json, storage_errors, sync_folder, unchecked, write_json_durably
from colbuild.store.leases import shared
from colbuild.store.objects import look
from colbuild.store.store import Store

SHORTEST_PREFIX: Final = 8
"""Fewer digits of a digest are taken for a name: "a76" is a model's."""

_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, order=True)
class Pin:
    """A result that stays.

    Attributes:
        digest: Of its tree.
        name: What the person called it: "phone", "phone/phone-int8", a step's id, or a prefix of the digest.
        step: The id of the step that made it; empty where the store does not know.
        family: The family whose step that is; empty where none was asked.
    """

    digest: str
    name: str
    step: str = ""
    family: str = ""


_ADAPTER = TypeAdapter(Pin)


def is_prefix(text: str) -> bool:
    """Returns whether a text can only be the beginning of a digest."""
    return SHORTEST_PREFIX <= len(text) <= 64 and set(text) <= _HEX


def pin(store: Store, wanted: Pin) -> bool:
    """Keeps a result; returns whether that is new.

    Raises:
        BuildError: The result is not in the store, or the disk refuses.
    """
    path = _path(store, wanted.digest)
    with storage_errors(path), shared(store.layout):
        found = look(store.layout, wanted.digest).damage
        if found is not None:
            raise BuildError(
                f"{wanted.digest[:12]} cannot be pinned: {found}", hint="run 'colbuild build' to make it again"
            )
        if _read(path) is not None:
            return False
        store.prepare()
        write_json_durably(store.layout.folder("tmp"), path, checked(asdict(wanted)))
    return True


def unpin(store: Store, name: str) -> Pin:
    """Lets go of the result that was pinned under a name, a step's id, or a digest of which this is the beginning.

    Raises:
        BuildError: No pin has that name, several have, or the disk refuses.
    """
    pins = read_pins(store)
    wanted = " ".join(name.split())
    found = [
        pin for pin in pins if wanted in (pin.name, pin.step) or (is_prefix(wanted) and pin.digest.startswith(wanted))
    ]
    if not found:
        held = ", ".join(f"'{pin.name}'" for pin in pins[:8])
        raise BuildError(f"nothing is pinned as '{name}'", hint=f"pinned: {held}" if pins else "there are no pins")
    if len(found) > 1:
        raise BuildError(f"'{name}' is several pins", hint=f"give the digest: {_told(found)}")
    path = _path(store, found[0].digest)
    with storage_errors(path):
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    return found[0]


def read_pins(store: Store) -> tuple[Pin, ...]:
    """Every pin of a store, by digest. The file's name says what is kept, so a damaged one still keeps it."""
    paths = sorted(store.layout.folder("pins").glob("*.json"))
    return tuple(_read(path) or Pin(path.stem, path.stem[:12]) for path in paths)


def _told(pins: Sequence[Pin]) -> str:
    return ", ".join(f"{pin.digest[:12]} ({pin.family or 'no family'}: {pin.step or pin.name})" for pin in pins)


def _path(store: Store, digest: str) -> Path:
    return store.layout.folder("pins") / f"{digest}.json"


def _read(path: Path) -> Pin | None:
    try:
        return _ADAPTER.validate_python(unchecked(read_json(path)))
    except ValidationError:
        return None
