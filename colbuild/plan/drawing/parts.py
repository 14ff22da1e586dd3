"""The parts of a model's output, and the parts that each step reads.

::

    weights     config.json, model.safetensors, lineage.json, ...        the model itself
    config      config.json alone
    tokenizer   tokenizer.json, tokenizer_config.json, ...               how text becomes tokens
    chat        chat_template.jinja, additional_chat_templates/          how a conversation becomes text
    texts       generation_config.json, origin.json, LICENSE, ...        what packages and people read
    (none)      training.json, interpolation.json                        what a training tells: no step reads it

A step's key holds the digest of each part that the step reads, and the step sees the files of these parts alone. So a changed
chat template packages every model again and trains none. Only the step that makes a tokenizer has its `tokenizer`, `chat` and
`texts` in its result: every model made from there on takes them from it, its *home*. A folder in `out/` holds them all.

A file that no table names belongs to `weights`: an unknown file may change a key needlessly, never be missing in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Final

from colbuild.arch.files.model_files import CHAT_FILES, LICENCES, TOKENIZER_FILES
from colbuild.arch.files.model_folder import CONFIG_FILE
from colbuild.hashing import Tag, TreeEntry, tree_digest
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import CHAT, CONFIG, TEXTS, TOKENIZER, WEIGHTS
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.store import Store

_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    TOKENIZER: TOKENIZER_FILES,
    CHAT: CHAT_FILES,
    TEXTS: ("generation_config.json", "origin.json", *LICENCES),
}
TOLD: Final = ("training.json", "interpolation.json")
"""What a step tells of how it went: in the result, for people, and in no part."""

CARRIED: Final = (TOKENIZER, CHAT, TEXTS)
"""Parts that a model has from its home."""

WORDS: Final[Mapping[str, str]] = {
    CONFIG: "configuration",
    TOKENIZER: "tokenizer",
    CHAT: "chat template",
    TEXTS: "licence or generation settings",
}
"""What a reason calls a part; the weights go by the name of the model."""


def parts_read(op: str, role: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that a step reads of what plays a role; none if it is read whole, or the operation is not known."""
    operation = OPERATIONS.get(op)
    return () if operation is None else operation.parts(role, params)


def with_every_part(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Steps in topological order, each with the parts that it reads."""
    steps = tuple(steps)
    homes = homes_of(steps)
    return tuple(with_parts(step, homes) for step in steps)


def with_parts(step: Step, homes: Mapping[str, str]) -> Step:
    """The step with the parts that it reads, each with the step that makes it.

    Args:
        step: As it was drawn.
        homes: Step id -> its home, of every step that it needs.
    """
    parts = {
        role: {part: homes[needed] if part in CARRIED else needed for part in wanted}
        for role, needed in step.inputs.items()
        if (wanted := parts_read(step.op, role, step.params))
    }
    return replace(step, parts=parts)


def home_of(step: Step, homes: Mapping[str, str]) -> str:
    """The step whose tokenizer, chat template and texts belong to what a step makes."""
    role = OPERATIONS[step.op].home
    return step.id if role is None or role not in step.inputs else homes[step.inputs[role]]


def homes_of(steps: Iterable[Step]) -> dict[str, str]:
    """Step id -> its home, of steps in topological order."""
    homes: dict[str, str] = {}
    for step in steps:
        homes[step.id] = home_of(step, homes)
    return homes


def part_of(path: str) -> str | None:
    """The part that a file of a model's output belongs to, by its relative path; None for what no step reads."""
    if path in TOLD:
        return None
    return next((part for part, patterns in _FILES.items() if _matches(path, patterns)), WEIGHTS)


def files_of(entries: Sequence[TreeEntry], part: str) -> tuple[TreeEntry, ...]:
    """The files of a part."""
    if part == CONFIG:
        return tuple(entry for entry in entries if entry.path == CONFIG_FILE)
    return tuple(entry for entry in entries if part_of(entry.path) == part)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


# -- what a key holds -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """The digests of parts of results, each worked out once."""

    store: Store
    _known: dict[tuple[str, str], str] = field(default_factory=dict, repr=False, compare=False)

    def digest(self, result: str, part: str | None) -> str | None:
        """The digest of a part of a result, of the whole where there is no part; None if the result's list of files is lost."""
        if part is None:
            return result
        known = self._known.get((result, part))
        if known is None:
            tree = self.store.tree(result)
            if tree is None:
                return None
            known = self._known[result, part] = tree_digest(files_of(tree.entries, part), Tag.PART)
        return known

    def inputs(self, step: Step, result_of: Callable[[str], str | None]) -> dict[str, str | None]:
        """Returns the inputs in a step's key: name -> digest, None if unknown.

        Args:
            step: The step.
            result_of: Step id -> digest of its result; None if that is not known.
        """
        found: dict[str, str | None] = {}
        for name, read in step.reads.items():
            result = result_of(read.step)
            found[name] = None if result is None else self.digest(result, read.part)
        return found
