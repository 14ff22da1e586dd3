"""A lock as a file: JSON with sorted keys, no times, and a digest that detects a bad merge.

::

    {
      "ansnet":  {…}                              the AnsNet's config.json: with it a fresh clone plans without the AnsNet
      "digest":  "…"                              of all the rest
      "epochs":  {"distill": 1, …}                the meaning of each operation
      "format":  "colbuild.lock.v1",
      "route":   [{"student": …, "teacher": …}]   every distillation, the largest student first
      "shapes":  {"a100": {"layers": …}}          of each anchor and DesNet
      "sources": {"hf://…": {"digest": …, "origin": {"commit": …}}}
      "spec":    {"digest": …, "values": {…}}     what the spec meant, every default filled in
    }
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from colbuild.arch import Shape
from colbuild.bounds import JSON_BYTES
from colbuild.documents import MalformedError, read_regular, shallow
from colbuild.errors import SpecError, system_reason
from colbuild.hashing import Tag, tagged_digest
from colbuild.spec import Place, Problem
from colbuild.spec.model.bridge import SAME
from colbuild.spec.text.problems import render
from colbuild.store.durable_files import storage_errors, sync_folder

LOCK_FORMAT: Final = "colbuild.lock.v1"
MENDING: Final = "'colbuild lock' writes it again"

_KNOWN: Final = re.compile(r"colbuild\.lock\.v(\d+)")
_CONFLICT: Final = re.compile(r"^(<{7}|>{7}|\|{7}|={7})( |$)")


@dataclass(frozen=True)
class LockedSource:
    """A source's content.

    Attributes:
        digest: Of the content, see `colbuild.fetch.fetching`.
        origin: What the place it came from calls it, such as a hub's commit; empty if it was on this machine.
    """

    digest: str
    origin: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Link:
    """A distillation of the route, by the names of its models."""

    student: str
    teacher: str


@dataclass(frozen=True)
class Lock:
    """The values that a spec leaves open.

    Attributes:
        ansnet: The AnsNet's config.json.
        epochs: Operation -> epoch, of every operation.
        route: Every distillation, the largest student first.
        shapes: Anchor or DesNet -> its solved shape.
        sources: Source URI -> its content.
        spec: The resolved family, as JSON values; what only steers a run is left out.
        vocabulary: Ids of the tokenizer that the bridge names; None if it names none.
        tokenizer: Bytes of the tokenizer in a package, where a DesNet is sized by its package and the files tell.
    """

    ansnet: Mapping[str, Any] = field(hash=False)
    epochs: Mapping[str, int] = field(hash=False)
    route: tuple[Link, ...]
    shapes: Mapping[str, Shape] = field(hash=False)
    sources: Mapping[str, LockedSource] = field(hash=False)
    spec: Mapping[str, Any] = field(hash=False)
    vocabulary: int | None = None
    tokenizer: int | None = None

    def describes(self, uri: str, digest: str | None) -> bool:
        """Returns whether `ansnet` is the configuration of an AnsNet from this source with this content."""
        return self._pins(uri, digest) and self.spec.get("ansnet", {}).get("source") == uri

    def counts(self, uri: str, digest: str | None) -> bool:
        """Returns whether `vocabulary` is that of a bridge's tokenizer from this source with this content."""
        return self._pins(uri, digest) and (self.spec.get("bridge") or {}).get("tokenizer") == uri

    def measures(self, uri: str, digest: str | None) -> bool:
        """Returns whether `tokenizer` is that of the family's tokenizer, from this source with this content."""
        named = (self.spec.get("bridge") or {}).get("tokenizer")
        source = named if isinstance(named, str) and named != SAME else self.spec.get("ansnet", {}).get("source")
        return self._pins(uri, digest) and source == uri

    def _pins(self, uri: str, digest: str | None) -> bool:
        known = self.sources.get(uri)
        return known is not None and known.digest == digest


_LOCK = TypeAdapter(Lock)


def lock_path(spec: Path) -> Path:
    """Returns the path of a family's lock: beside the family's file, with its name."""
    return spec.with_suffix(".lock")


def lock_text(lock: Lock) -> str:
    """A lock's file. The same lock has the same text."""
    values = asdict(lock)
    values["route"] = list(values["route"])
    for name in ("vocabulary", "tokenizer"):
        if values[name] is None:
            del values[name]
    values["spec"] = {"digest": _digest(lock.spec), "values": lock.spec}
    values["format"] = LOCK_FORMAT
    values["digest"] = _digest(values)
    return json.dumps(values, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def write_lock(path: Path, lock: Lock) -> bool:
    """Puts a lock at a path in one rename; returns whether that changed the file.

    Raises:
        BuildError: The disk refuses.
    """
    text = lock_text(lock)
    with storage_errors(path):
        if _holds(path, text.encode("utf-8")):
            return False
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                # Else a power loss might leave an empty lock, and nothing would pin the sources.
                os.fsync(file.fileno())
            draft.replace(path)
            sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)
    return True


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_regular(path, len(content)) == content
    except (FileNotFoundError, MalformedError):
        return False


def read_lock(path: Path, name: str) -> Lock | Problem | None:
    """The lock at a path; None if there is none, and if it cannot be used what is wrong with it.

    Args:
        path: Where it lies.
        name: What messages call it.

    Raises:
        SpecError: It was written by a newer colbuild, and so is not to be overwritten.
    """
    try:
        text = read_regular(path, JSON_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except MalformedError as error:
        return Problem(None, f"{name} cannot be read: {error}", "remove it and run 'colbuild lock'")
    except OSError as error:
        return Problem(None, f"{name} cannot be read: {system_reason(error)}")
    conflict = _conflict(text, name)
    if conflict is not None:
        return conflict
    try:
        values = shallow(json.loads(text))
    except (RecursionError, MalformedError):
        return Problem(Place(name, 1, 1), f"{name} is not a lock", MENDING)
    except ValueError as error:
        line, column = (error.lineno, error.colno) if isinstance(error, json.JSONDecodeError) else (1, 1)
        return Problem(_place(text, name, line, column), f"{name} is not JSON", MENDING)
    return _parsed(values, name)


def _parsed(values: Any, name: str) -> Lock | Problem:
    form = values.get("format") if isinstance(values, dict) else None
    newer = _KNOWN.fullmatch(form) if isinstance(form, str) else None
    if newer and form != LOCK_FORMAT:
        hint = "use that colbuild, or remove the file and run 'colbuild lock'"
        raise lock_error(
            Problem(Place(name, 1, 1), f"{name} has the format of another version of colbuild: {form}", hint)
        )
    damaged = Problem(Place(name, 1, 1), f"{name} is damaged: it was edited by hand, or merged line by line", MENDING)
    if not isinstance(values, dict) or form != LOCK_FORMAT:
        return damaged
    stated = values.pop("digest", None)
    try:
        if stated != _digest(values):
            return damaged
        spec = values.pop("spec")
        del values["format"]
        return _LOCK.validate_python({**values, "spec": spec["values"]})
    except (ValidationError, ValueError, KeyError, TypeError, RecursionError):
        return damaged


def _conflict(text: str, name: str) -> Problem | None:
    """Where a merge stopped, if the file still holds the marks of one."""
    marks = [number for number, line in enumerate(text.splitlines(), 1) if _CONFLICT.match(line)]
    if not marks:
        return None
    hint = "merge the spec, then write this file again with 'colbuild lock'"
    return Problem(_place(text, name, marks[0], 1), f"a merge conflict is left in {name}", hint)


def _place(text: str, name: str, line: int, column: int) -> Place:
    lines = text.splitlines()
    source = lines[line - 1] if line <= len(lines) else ""
    return Place(name, line, column, source, max(1, len(source) - column + 1))


def _digest(values: Any) -> str:
    return tagged_digest(Tag.LOCK, values)


def lock_error(problem: Problem) -> SpecError:
    """The error that tells why a lock cannot be used."""
    return SpecError(render(problem))


def missing_lock(name: str) -> SpecError:
    """Returns the error for a missing lock."""
    return SpecError(f"there is no {name}", hint="write it with 'colbuild lock', and commit it beside the spec")
