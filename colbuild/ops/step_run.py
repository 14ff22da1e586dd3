"""The inputs and outputs of every operation: the contract between the executor and `colbuild.ops`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colbuild.errors import StoppedError
from colbuild.progress import Progress, Report, never, silent

CHECKPOINT_EVERY = 300.0
"""Seconds between two checkpoints inside a long step, where nobody asks for another interval."""


def unnoted(_: Mapping[str, Any]) -> None:
    """For runs whose figures nobody records."""


def unheard(_: str) -> None:
    """For runs whose remarks nobody reads."""


@dataclass(frozen=True)
class StepRun:
    """One run of one step. An operation reads `inputs` and its parameters, and fills `output`; it knows nothing else.

    What lies in `partial`, when it is, and whether a run was stopped in between changes nothing in `output`.

    Attributes:
        inputs: The directory behind each input role ("model", "corpus", ...); read-only.
        output: An existing, empty directory. The same inputs and parameters give the same bytes in it.
        report: Called now and then with the progress made.
        partial: A directory for what a long step goes on from after it was interrupted, to be made when there is something to
            keep. It belongs to this step's key, may hold what an earlier run left, and is removed once the result is
            published. None: nothing is kept.
        checkpoint_every: Seconds between two checkpoints in `partial`.
        stopping: Tells whether the step shall stop at its next boundary: keep what it can go on from, raise StoppedError.
        settings: What steers the run and changes nothing in `output`: a recipe's `compile`, `track` and the like.
        metrics: A file for readings, one JSON line each, appended to; None: nobody reads them.
        compiled: A directory that keeps what compilers made, shared by all steps of a store; None: nothing is kept.
        note: Takes figures about the run itself (seconds, bytes, FLOPs) for its record; they are in no output.
        remark: Takes a sentence for the user about what the step changed or left out; it is shown during the build.
    """

    inputs: Mapping[str, Path]
    output: Path
    report: Report = silent
    partial: Path | None = None
    checkpoint_every: float = CHECKPOINT_EVERY
    stopping: Callable[[], bool] = never
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Path | None = None
    compiled: Path | None = None
    note: Callable[[Mapping[str, Any]], None] = unnoted
    remark: Callable[[str], None] = unheard

    def check(self) -> None:
        """Ends a step that keeps nothing, if it shall stop.

        Raises:
            StoppedError: It shall.
        """
        if self.stopping():
            raise StoppedError("stopped; this step starts from its beginning next time")

    def reached(self, progress: Progress) -> None:
        """Reports a boundary, where a step that keeps nothing ends if it shall stop: its `report` for library functions.

        Raises:
            StoppedError: It shall stop.
        """
        self.report(progress)
        self.check()
