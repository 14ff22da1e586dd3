"""Predicts the unchanged parts of a source step's result if only some of its files changed.

After a source step ran, each part of its result is remembered by the digest of the files that the part is made of. When another
file changes, such as the chat template, the step runs again, and a plan knows already that the weights come out as they were.
It is for plans alone: a build looks at what the step made.

A GGUF file holds everything, and nothing is foreseen of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from colbuild.arch.files.model_files import CHAT_FILES, LICENCES, SETTINGS, TOKENIZER_FILES
from colbuild.documents import MalformedError, read_json_file
from colbuild.fetch.contents import Sources
from colbuild.hashing import TreeEntry, canonical_json, hash_bytes, spaced_json
from colbuild.plan.drawing.parts import Parts
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import CHAT, TEXTS, TOKENIZER, WEIGHTS
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.store import Store

_KIND: Final = "foreseen"
_TEMPLATE: Final = "chat_template"
_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    TOKENIZER: (*TOKENIZER_FILES, "tokenizer.model", "vocab.json", "merges.txt"),
    CHAT: CHAT_FILES,
    TEXTS: ("generation_config.json", "README.md", *LICENCES),
}
"""Files of a source by what is made of them; all others count as weights."""

_MADE_OF: Final[Mapping[str, tuple[str, ...]]] = {
    WEIGHTS: (WEIGHTS,),
    TOKENIZER: (WEIGHTS, TOKENIZER),
    CHAT: (CHAT,),
    TEXTS: (WEIGHTS, TOKENIZER, TEXTS),
}
"""Part of the result -> the files that decide it."""


def foresee(step: Step, sources: Sources, store: Store) -> Mapping[str, str]:
    """Part -> digest of each part of a source step's result that an earlier run made of the same files."""
    found = {}
    for part, name in _names(step, sources).items():
        known: Any = store.remembered(_KIND, name)
        if isinstance(known, str):
            found[part] = known
    return found


def remember(step: Step, sources: Sources, store: Store, result: str) -> None:
    """Remembers what a source step made of its files.

    Args:
        step: The step; any other is passed over.
        sources: Where its files are.
        store: Where its result is.
        result: Digest of the result.
    """
    parts = Parts(store)
    for part, name in _names(step, sources).items():
        digest = parts.digest(result, part)
        if digest is not None:
            store.remember(_KIND, name, digest)


def _names(step: Step, sources: Sources) -> Mapping[str, str]:
    """Part -> the name of what decides it; nothing where the step is none, or its source no folder that is here."""
    listed = sources.listing(step.sources["raw"]) if step.op == "source" else None
    if listed is None:
        return {}
    groups = _groups(*listed)
    return {part: _digest(step, part, [groups[group] for group in made_of]) for part, made_of in _MADE_OF.items()}


def _digest(step: Step, part: str, rows: Sequence[Any]) -> str:
    deciding = [step.op, OPERATIONS[step.op].epoch, dict(step.params), part, rows]
    return hash_bytes(canonical_json(deciding))


def _groups(folder: Path, entries: Iterable[TreeEntry]) -> dict[str, list[Any]]:
    """The files of a source by what is made of them. A template in tokenizer_config.json counts as a file of its own."""
    groups: dict[str, list[Any]] = {WEIGHTS: [], TOKENIZER: [], CHAT: [], TEXTS: []}
    for entry in sorted(entries):
        if entry.path == SETTINGS:
            settings = _settings(folder / SETTINGS)
            if settings is not None:
                groups[CHAT].append(_hashed(settings.pop(_TEMPLATE, None)))
                groups[TOKENIZER].append(_hashed(settings))
                continue
        matching = (group for group, names in _FILES.items() if any(fnmatchcase(entry.path, name) for name in names))
        groups[next(matching, WEIGHTS)].append([entry.path, entry.sha256])
    return groups


def _settings(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json_file(path)
    except (OSError, MalformedError):
        return None
    return found if isinstance(found, dict) else None


def _hashed(value: Any) -> str:
    return hash_bytes(spaced_json(value))
