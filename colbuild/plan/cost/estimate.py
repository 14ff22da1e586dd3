"""The estimated cost of a plan, and the basis of each estimate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from colbuild.plan.changes.states import State, StepPlan
from colbuild.plan.cost.ansnet_reads import Reads, ansnet_reads
from colbuild.plan.cost.machine import MachineSpeed
from colbuild.plan.cost.rates import Run, WeightsOf, known_models, recorded_runs, runs_told, time_of
from colbuild.plan.cost.works import works_of
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.operation import Work
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.rounded_ansnet import Alternatives
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.spec import Problem
from colbuild.store import ActionRecord

PACKED: Final = 4
"""Bytes of text that become one byte of a packed corpus, at most: two bytes for a token of eight."""


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a step that is not in the store.

    Attributes:
        step: Its id.
        conditional: Whether it runs only if something before it comes out different.
        flops: Its arithmetic; None if its time does not go by it.
        seconds: How long it takes; None if nothing is known to tell it from.
        basis: What `seconds` rests on, in words.
        runs: How many recorded runs `seconds` rests on; 0 for none.
        disk: Bytes of its result; None if only its source could tell.
        memory: Bytes that it needs at its peak.
    """

    step: str
    conditional: bool
    flops: int | None
    seconds: float | None
    basis: str
    runs: int
    disk: int | None
    memory: int


@dataclass(frozen=True)
class Estimates:
    """The estimated cost of a plan.

    Attributes:
        steps: Id of each step that is not in the store -> its estimate.
        least: Seconds if no conditional step has to run; of the steps whose time can be told.
        most: Seconds if all of them have to.
        basis: What these rest on together, in words; empty if no time can be told.
        untold: How many steps' time cannot be told.
        disk: Bytes written to the store, at most; of the steps whose result's size can be told.
        memory: Bytes that the steps need at the fullest moment, if all of them run.
        reads: The AnsNet's part; None for a family whose models are all the AnsNet.
        warnings: What this machine may lack for it.
        instead: The AnsNet in fewer bits, beside the packages of the family; None if nobody asked.
    """

    steps: Mapping[str, Estimate]
    least: float
    most: float
    basis: str
    untold: int
    disk: int
    memory: int
    reads: Reads | None
    warnings: tuple[Problem, ...] = ()
    instead: Alternatives | None = None


def unknown_weights(_: str) -> str | None:
    """For estimates without a store."""
    return None


def estimate(
    graph: BuildGraph,
    steps: Sequence[StepPlan],
    chain: Chain,
    records: Callable[[], Iterable[ActionRecord]],
    speed: Callable[[], MachineSpeed],
    together: Callable[[Mapping[str, float], Mapping[str, int]], tuple[float, int]],
    whole: BuildGraph | None = None,
    texts: Mapping[str, int] | None = None,
    weights_of: WeightsOf = unknown_weights,
) -> Estimates:
    """Estimates a plan.

    Args:
        graph: The steps of the plan.
        steps: What each is going to do.
        chain: The family's models.
        records: Reads every run that the store remembers; called only if something is pending.
        speed: Tells how fast this machine is; called, once, only if something is pending that no recorded run compares with.
        together: (step id -> seconds, step id -> bytes of memory) -> (seconds in all, bytes at the fullest moment) of steps
            that may run side by side.
        whole: The graph of the whole family, if the plan is of a part of it.
        texts: Step that packs a corpus -> bytes of text that it reads, where these are known.
        weights_of: Digest of a result -> digest of the weights in it, as keys name them; None if its list of files is lost.
    """
    every_step = whole or graph
    made, works = works_of(every_step, chain, texts or {})
    pending = [plan for plan in steps if plan.state is not State.CACHED]
    runs = recorded_runs(records(), known_models(steps, made), chain.top.structure, weights_of) if pending else []
    measured = cache(speed)
    found = {plan.step.id: _estimate(plan, works[plan.step.id], runs, measured) for plan in pending}
    every = list(found.values())
    memory = {one.step: one.memory for one in every}
    least, _ = together({one.step: one.seconds or 0.0 for one in every if not one.conditional}, memory)
    most, fullest = together({one.step: one.seconds or 0.0 for one in every}, memory)
    return Estimates(
        found,
        least,
        most,
        _together(every),
        sum(one.seconds is None for one in every),
        sum(one.disk or 0 for one in every),
        fullest,
        ansnet_reads(chain, every_step, works),
    )


def peak_memory(graph: BuildGraph, chain: Chain) -> dict[str, int]:
    """Step id -> bytes that it needs at its peak; what a build keeps steps apart by."""
    _, works = works_of(graph, chain, {})
    return {step: work.memory for step, work in works.items()}


@dataclass(frozen=True)
class Written:
    """The bytes that a step writes.

    Attributes:
        least: Bytes that it surely writes; 0 for one that may not run.
        most: Bytes that it writes at most, as far as that is known.
    """

    least: int
    most: int


def written(graph: BuildGraph, chain: Chain, steps: Sequence[StepPlan], texts: Mapping[str, int]) -> dict[str, Written]:
    """Step that is not in the store -> what it writes there.

    Args:
        graph: The steps of the plan.
        chain: The family's models.
        steps: What each is going to do.
        texts: Step that packs a corpus -> bytes of text that it reads, where these are known.
    """
    _, works = works_of(graph, chain, texts)
    found = {}
    for plan in steps:
        if plan.state is State.CACHED:
            continue
        step, most = plan.step, works[plan.step.id].disk or 0
        least = texts.get(step.id, 0) // PACKED if OPERATIONS[step.op].size_by_text else most
        found[step.id] = Written(0 if plan.state is State.CONDITIONAL else least, most)
    return found


def _estimate(plan: StepPlan, work: Work, runs: Sequence[Run], speed: Callable[[], MachineSpeed]) -> Estimate:
    seconds, basis, count = time_of(plan, work, runs, speed)
    conditional = plan.state is State.CONDITIONAL
    return Estimate(plan.step.id, conditional, work.flops, seconds, basis, count, work.disk, work.memory)


def _together(estimates: Sequence[Estimate]) -> str:
    told = [one for one in estimates if one.seconds is not None]
    calibrated = [one for one in told if one.runs]
    if not told:
        return ""
    if not calibrated:
        return "from a micro-benchmark, uncalibrated"
    if len(calibrated) < len(told):
        return f"{len(told) - len(calibrated)} of {len(told)} steps uncalibrated"
    # Most of the time decides what the sum is worth.
    least = min(one.runs for one in calibrated)
    most = max(one.runs for one in calibrated)
    return f"median of {runs_told(least)}" if least == most else f"medians of {least} to {most} runs"
