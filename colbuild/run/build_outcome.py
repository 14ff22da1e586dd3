"""The outcome of a build: results, failures, and the error that reports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from colbuild.errors import ColbuildError, StoppedError
from colbuild.plan.cost.waiting import Waiting
from colbuild.run.build_request import BuildRequest
from colbuild.run.process.failures import last_lines
from colbuild.run.process.job import Failed
from colbuild.store import ActionRecord


@dataclass(frozen=True)
class Executed:
    """The results of a graph's steps.

    Attributes:
        records: Step id -> the record of its result.
        ran: Ids of the steps that ran, in the order of the graph; the others were in the store.
    """

    records: Mapping[str, ActionRecord]
    ran: tuple[str, ...]


class StepError(ColbuildError):
    """A step failed; says which, and keeps the exit code of the reason."""

    def __init__(self, message: str, hint: str | None, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The outcomes of the steps so far.

    Attributes:
        records: Step id -> the record of its result, for those that are done.
        ran: Those of them that ran.
        failed: Step id -> why it failed.
        stopped: Step id -> where it stopped, since somebody asked for it.
    """

    records: dict[str, ActionRecord] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    failed: dict[str, Failed] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)

    def executed(self, request: BuildRequest) -> Executed:
        """The whole, once every step is done."""
        return Executed(self.records, tuple(step.id for step in request.graph.steps if step.id in self.ran))

    def interrupted(self, request: BuildRequest) -> StoppedError:
        """The error that tells how far a build came that somebody stopped."""
        lines = [f"interrupted: {len(self.records)} of {len(request.graph.steps)} steps are in the store"]
        lines += [f"  {step}: {where}" for step, where in self.stopped.items()]
        return StoppedError("\n".join(lines), hint="'colbuild build' continues from there")

    def failures(self, request: BuildRequest, waiting: Waiting) -> StepError:
        """The error that tells every failure, and what else there is to build."""
        lines = []
        ordered = sorted(self.failed.items(), key=lambda item: waiting.index(item[0]))
        for step, failed in ordered:
            lines.append(f"{step}: {failed.message}")
            if failed.unexpected and (told := last_lines(request.log(step))):
                lines.append(told)
        behind = waiting.behind(self.failed)
        others = waiting.left() - behind - set(self.failed)
        first = ordered[0][1]
        hints = [first.hint] if first.hint else []
        if behind and len(self.failed) > 1:
            lines.append(f"not built, since they need these: {_named(waiting, behind)}")
        if others:
            count = "one other step does" if len(others) == 1 else f"{len(others)} other steps do"
            hints.append(f"{count} not need it: 'colbuild build --keep-going' builds {_named(waiting, others)}")
        return StepError("\n".join(lines), "; ".join(hints) or None, first.exit_code)


def _named(waiting: Waiting, steps: set[str]) -> str:
    ordered = sorted(steps, key=waiting.index)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more
