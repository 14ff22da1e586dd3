"""Times of steps: from recorded runs, scaled by the work, else from this machine's speed.

::

    runs of the same step on the same work        median of 3 runs
    runs of the same step, other work             median of 3 runs, scaled
    runs of the same operation, similar work      median of 4 distill runs, scaled
    none                                          from FLOPs at 236 GFLOP/s by a micro-benchmark, uncalibrated

The micro-benchmark (`colbuild.plan.cost.machine`) is asked for the last kind only, and measures no step: a step reaches a
share of the machine's speed that was measured elsewhere (`Operation.flops_share`). The first step that runs calibrates the
next plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from colbuild.arch import Structure
from colbuild.plan.changes.states import StepPlan
from colbuild.plan.cost.machine import MachineSpeed
from colbuild.plan.drawing.step import part_named, role_of
from colbuild.plan.operation import WEIGHTS, Scene, Work
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.store import ActionRecord

SIMILAR: Final = 10.0
"""Runs of other steps are compared with if they did at most this many times more or less work.

Beyond that what is constant in a step, such as loading a model, decides: a tiny family says nothing of a large one.
"""

WeightsOf = Callable[[str], str | None]
"""Digest of a result -> digest of the weights in it, as keys name them; None if its list of files is lost."""


@dataclass(frozen=True)
class Run:
    """A recorded run, and the amount of work that it did; None for work on a model whose shape no record tells."""

    record: ActionRecord
    amount: int | None


def known_models(steps: Sequence[StepPlan], made: Mapping[str, Structure]) -> dict[str, Structure]:
    """Digest -> model, of the results of this plan that are in the store."""
    return {plan.output: made[plan.step.id] for plan in steps if plan.output is not None and plan.step.id in made}


def _once(records: Iterable[ActionRecord]) -> Iterable[ActionRecord]:
    """Every run once: one of an older version of colbuild stands in the store under two keys."""
    return {(record.step, record.output, record.built_at, record.seconds): record for record in records}.values()


def recorded_runs(
    records: Iterable[ActionRecord], models: Mapping[str, Structure], like: Structure, weights_of: WeightsOf
) -> list[Run]:
    """Every recorded run with the work it did; None for work on a model of another family, whose shape no record tells."""
    known = dict(models) | {weights_of(result) or result: model for result, model in models.items()}
    # What made a model ran before what reads it.
    ordered = sorted(_once(records), key=lambda record: (record.built_at, record.key))
    segments: set[str] = set()
    runs = []
    for record in ordered:
        inputs = {role_of(name): known[digest] for name, digest in record.inputs.items() if digest in known}
        read = {role_of(name): digest for name, digest in record.inputs.items() if part_named(name) in (None, WEIGHTS)}
        try:
            operation = OPERATIONS[record.op]
            params = operation.params.read(record.params)
            made = known.get(record.output) or operation.made(params, inputs, like)
            alone = read.get("model") == read.get("reference")
            scene = Scene(inputs, made, alone=alone, nested=read.get("smaller") in segments)
            work = operation.work_of(params, scene)
            if params.keeps_nested:
                segments |= {record.output, weights_of(record.output) or record.output}
        except (KeyError, TypeError, ValueError):
            continue  # written by another version of colbuild, with other parameters: it says nothing of this one
        if made is not None:
            known.setdefault(record.output, made)
            known.setdefault(weights_of(record.output) or record.output, made)
        runs.append(Run(record, work.amount if work else None))
    return runs


def time_of(
    plan: StepPlan, work: Work, runs: Sequence[Run], speed: Callable[[], MachineSpeed]
) -> tuple[float | None, str, int]:
    """(seconds, what they rest on, how many runs that is)."""
    step, amount = plan.step, work.amount
    alike = [
        run
        for run in runs
        if run.record.op == step.op
        and run.record.seconds > 0
        and not run.record.resumed
        and _same_kind(run, step.params)
    ]
    own = [run for run in alike if run.record.step == step.id]
    # A step's work may be unknown, as that of a corpus without a limit; its own runs tell its time all the same.
    same = [run for run in own if run.amount == amount and (amount is not None or run.record.params == step.params)]
    # How much text a run had read is not written down where the spec sets no limit.
    same = same or [run for run in own if run.amount is None and run.record.params == step.params]
    if same:
        return median(run.record.seconds for run in same), f"median of {runs_told(len(same))}", len(same)
    if amount:
        similar = [run for run in own if _close(run, amount)]
        named = "" if similar else f"{step.op} "
        similar = similar or [run for run in alike if _close(run, amount)]
        if similar:
            rate = median(run.record.seconds / (run.amount or amount) for run in similar)
            return rate * amount, f"median of {runs_told(len(similar), named)}, scaled", len(similar)
        if work.flops is not None:
            rate = (OPERATIONS[step.op].flops_share or 1.0) * speed().matrices
            told = f"from FLOPs at {_rounded(rate / 1e9)} GFLOP/s"
        else:
            rate = (OPERATIONS[step.op].byte_share or 1.0) * speed().plain
            told = f"from bytes at {_rounded(rate / 1e6)} MB/s"
        return amount / rate, f"{told} by a micro-benchmark, uncalibrated", 0
    return None, "unknown: the spec does not give the size of its input, and it never ran here", 0


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def _same_kind(run: Run, params: Mapping[str, object]) -> bool:
    """Returns whether a run computed in the same way: other precisions take another time for the same work."""
    return _kind(run.record.params) == _kind(params)


def _kind(params: Mapping[str, object]) -> object:
    for part, key in (("profile", "precision"), ("recipe", "precision")):
        inner = params.get(part)
        if isinstance(inner, Mapping):
            return inner.get(key)
    return params.get("precision", params.get("format"))


def _close(run: Run, amount: int) -> bool:
    return bool(run.amount) and 1 / SIMILAR <= amount / (run.amount or amount) <= SIMILAR


def runs_told(count: int, op: str = "") -> str:
    """A number of runs in words: "3 distill runs"."""
    return f"{count} {op}run" if count == 1 else f"{count} {op}runs"
