"""A step of the build: a pure function of digests to a directory, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Step:
    """One node of the build graph.

    Attributes:
        id: Unique in a family, and what people read: "distill a100", "export phone/phone-int8".
        op: The operation, a key of `colbuild.plan.operations.EPOCHS`.
        params: The resolved parameters that change the result: JSON values only. They are part of the key.
        inputs: Role -> id of the step whose output plays it.
        sources: Role -> source URI whose content plays it (a file or folder from outside, known by its digest).
        settings: What steers a run and changes nothing in its result, such as `checkpoint_every`: JSON values, not in the key.
    """

    id: str
    op: str
    params: Mapping[str, Any] = field(hash=False)
    inputs: Mapping[str, str] = field(default_factory=dict, hash=False)
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
