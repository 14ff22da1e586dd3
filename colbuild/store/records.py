"""Action records: the inputs and parameters of each tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError

from colbuild.store.durable_files import CHECK, checked, unchecked

Digest = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,128}$")]
"""The name of a tree, which is a path's last part: it must lead nowhere else."""

LATEST: Final = 1e11
"""Seconds since 1970 that no build sees."""


@dataclass(frozen=True)
class ActionRecord:
    """A finished action.

    Attributes:
        key: What decides whether it can be reused (see `colbuild.plan.drawing.keys`).
        step: The id of the step that ran it.
        op: Its operation.
        params: The parameters in its key.
        inputs: Role -> content digest.
        output: The digest of the tree it made.
        size: The bytes in that tree.
        seconds: How long it took; 0 if another machine made it.
        built_at: When it ended, in seconds since 1970.
        resumed: Whether it went on from where an earlier run was interrupted, so that `seconds` is not all of it.
        ledger: Figures that the run noted of itself, such as `colbuild.train.watching.ledger`'s of a training; in no key or
        digest.
    """

    key: str
    step: str
    op: str
    params: Mapping[str, Any] = field(hash=False)
    inputs: Mapping[str, str] = field(hash=False)
    output: Digest
    size: Annotated[int, Field(ge=0, lt=1 << 63)]
    seconds: Annotated[float, Field(ge=0, lt=LATEST)]
    built_at: Annotated[float, Field(ge=0, lt=LATEST)]
    resumed: bool = False
    ledger: Mapping[str, Any] = field(default_factory=dict, hash=False)


_ADAPTER = TypeAdapter(ActionRecord)


def record_to_json(record: ActionRecord) -> dict[str, Any]:
    """The record as JSON values, with a check on them."""
    return checked(asdict(record))


def record_from_json(value: Any) -> ActionRecord | None:
    """The record behind JSON values; None if they are not one, or not what was written. Older ones have no check."""
    if isinstance(value, dict) and CHECK in value:
        value = unchecked(value)
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError:
        return None
