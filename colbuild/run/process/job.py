"""Values that a build and a step's process exchange: the job, and its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from colbuild.fetch.contents import Sources
from colbuild.plan.drawing.step import Step
from colbuild.store import ActionRecord


@dataclass(frozen=True)
class Job:
    """One step to bring into the store.

    Attributes:
        step: The step.
        index: Its place among the steps of the graph, from 0.
        total: How many steps the graph has.
        family: The family's name.
        inputs: Name of `Step.reads` -> digest of the result that it is read from.
        store: Where the store lies.
        sources: Where contents from outside come from.
        remote: The URL of a remote cache that is asked before anything runs; None for none.
        push: Whether the result is put there.
        threads: How many threads it may compute with.
        gpus: The GPUs that are its own, by their numbers.
        log: The file for what it prints.
    """

    step: Step
    index: int
    total: int
    family: str
    inputs: Mapping[str, str]
    store: Path
    sources: Sources
    threads: int
    gpus: tuple[int, ...]
    log: Path
    remote: str | None = None
    push: bool = False

    @property
    def metrics(self) -> Path:
        """The file for its readings, beside its log."""
        return self.log.with_suffix(".metrics.jsonl")


@dataclass(frozen=True)
class Done:
    """The result is in the store; `fresh` says that the step ran for it."""

    record: ActionRecord
    fresh: bool


@dataclass(frozen=True)
class Failed:
    """The step failed.

    Attributes:
        message: Why, for the user.
        hint: The next thing to try, if there is one.
        exit_code: Of the command that ends with it.
        transient: Whether the same step might succeed if it is run again.
        unexpected: Whether its log tells more than the message.
    """

    message: str
    hint: str | None
    exit_code: int
    transient: bool
    unexpected: bool = False


@dataclass(frozen=True)
class Stopped:
    """The step stopped at a boundary, as it was asked to; `message` says where."""

    message: str


@dataclass(frozen=True)
class InputLost:
    """An input is damaged or gone: the step that made it has to run again first."""

    role: str
    what: str


def as_step(record: ActionRecord, step: Step) -> ActionRecord:
    """A record under this step's name: another step, or another family's, may have made the same result."""
    return record if record.step == step.id else replace(record, step=step.id)


Outcome = Done | Failed | Stopped | InputLost
