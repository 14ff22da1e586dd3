"""The events of a build, as values: one stream for the terminal, the JSON lines and the record of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from colbuild.progress import Progress

VERSION: Final = 1
"""The version of the JSON form."""


@dataclass(frozen=True)
class BuildStarted:
    """A build begins: its family, all its steps in order, how many are not in the store, and the family's file."""

    family: str
    steps: tuple[str, ...]
    to_run: int
    spec: str | None = None


@dataclass(frozen=True)
class StepStarted:
    """A step begins to run; `index` counts from 0 among the `total` steps of the family."""

    step: str
    index: int
    total: int


@dataclass(frozen=True)
class StepProgress:
    """A running step got further."""

    step: str
    progress: Progress


@dataclass(frozen=True)
class StepCached:
    """A step need not run, and why."""

    step: str
    why: str


@dataclass(frozen=True)
class StepFinished:
    """A step ran and its result is in the store: how long it took, and the bytes of the result.

    `same` says that the result is what the step's last run gave, so that nothing after it runs for its sake (early cutoff).
    `ledger` holds the figures that the step noted of itself; of a training, those of `colbuild.train.watching.ledger`.
    """

    step: str
    seconds: float
    size: int
    same: bool = False
    ledger: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class StepFailed:
    """A step failed, and why."""

    step: str
    message: str


@dataclass(frozen=True)
class SourceProgress:
    """A source is being fetched."""

    uri: str
    progress: Progress


@dataclass(frozen=True)
class RemoteLost:
    """The remote cache does not answer as it should; the build goes on without it."""

    message: str


@dataclass(frozen=True)
class Packaged:
    """A package lies in its folder now; `size` in bytes, `broken` the limits that it does not keep, where that is only told."""

    model: str
    profile: str
    folder: str
    size: int
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notice:
    """Something worth saying that is neither progress nor an error."""

    message: str


@dataclass(frozen=True)
class BuildFinished:
    """A build is done: how many steps ran, how many were in the store, and how long it took."""

    ran: int
    cached: int
    seconds: float


Event = (
    BuildStarted
    | StepStarted
    | StepProgress
    | StepCached
    | StepFinished
    | StepFailed
    | SourceProgress
    | RemoteLost
    | Packaged
    | Notice
    | BuildFinished
)

Listener = Callable[[Event], None]

_NAMES: Final = {
    BuildStarted: "build_started",
    StepStarted: "step_started",
    StepProgress: "step_progress",
    StepCached: "step_cached",
    StepFinished: "step_finished",
    StepFailed: "step_failed",
    SourceProgress: "source_progress",
    RemoteLost: "remote_lost",
    Packaged: "packaged",
    Notice: "notice",
    BuildFinished: "build_finished",
}


def event_to_json(event: Event) -> dict[str, Any]:
    """An event as JSON values: its name under "event", the form's version under "v", then its fields."""
    return {"event": _NAMES[type(event)], "v": VERSION, **asdict(event)}
