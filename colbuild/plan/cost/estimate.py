"""What a plan is going to cost, and what each estimate rests on.

Time comes from runs recorded in the store, scaled by the work to do, and where none compares from how fast this machine
is at plain things::

    runs of the same step on the same work        median of 3 runs
    runs of the same step, other work             median of 3 runs, scaled
    runs of the same operation, similar work      median of 4 distill runs, scaled
    none                                          from FLOPs at 236 GFLOP/s by a micro-benchmark, uncalibrated

The micro-benchmark (`colbuild.plan.cost.machine`) is asked for the last kind only, and measures no step: what a step makes
of the machine's speed is a share that was found elsewhere. The first step that runs calibrates the next plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from typing import Final

from colbuild.arch import Structure, forward_flops
from colbuild.plan.changes.states import State, StepPlan
from colbuild.plan.cost.machine import MachineSpeed
from colbuild.plan.cost.work import Work, is_segment, made_structure, recipe_of, trained_tokens, work_of
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.parts import WEIGHTS
from colbuild.plan.drawing.step import Step, part_named, role_of
from colbuild.plan.drawing.training_params import lessons_params
from colbuild.plan.shapes.bridge_shape import BRIDGE
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.shapes.route import distillation_flops
from colbuild.spec import Problem
from colbuild.store import ActionRecord

FLOPS_SHARES: Final[Mapping[str, float]] = {
    "order": 0.8,  # 156 and 200 GFLOP/s, 2 runs
    "generate": 0.4,  # 0.54 and 0.68 on one core of a Xeon, of texts as long as they may be; less where they end sooner
    "bridge": 1.05,  # trains as distill does; no run
    "align": 0.4,  # two models forward, and matching; no run
    "teach": 0.8,  # runs a model forward as order does; no run
    "distill": 1.05,  # 231 to 239, 4 runs
    "recover": 1.05,  # trains as distill does; no run
    "quantise": 1.05,  # the same; no run
    "interpolate": 0.84,  # 186 and 188 on one of two cores, of as many candidates as there can be
    "evaluate": 0.46,  # 102 to 113 on one of two cores, 5 runs
}
"""FLOPs of a step per FLOP of multiplying fp32 matrices on all cores, where no run says better.

From the recorded runs of the SmolLM2 family (`specs/family.yaml`) on two cores of an AMD EPYC, each of which multiplies fp32
matrices at 112 GFLOP/s; steps that do not train use half of the cores. All of them compute in bf16, for which this
processor has instructions; so 1 is not the most there is, and a processor that has none is slower than this says. A
recipe's fp32 is taken for as fast: it is a fifth slower there.
"""

BYTE_SHARES: Final[Mapping[str, float]] = {
    "source": 2.8,  # 30 and 55 MB/s of weights in 16 bits, read from GGUF; 2 runs
    "tokenizer": 0.3,  # counts words and merges them; no run
    "corpus": 0.08,  # 1.1 and 1.7 MB/s of text, 2 runs, one beside another step
    "interpolate": 10.0,  # a mixture that is given: mostly starting up, 1 run
    "export": 4.3,  # 56 to 77 MB/s of weights in fp32, 8 runs
}
"""Bytes of a step per byte of text whose words one core counts, where no run says better; from the same runs.

That core counts 15 MB/s.
"""

PACKED: Final = 4
"""Bytes of text that become one byte of a packed corpus, at most: two bytes for a token of eight."""

SIMILAR: Final = 10.0
"""Runs of other steps are compared with if they did at most this many times more or less work.

Beyond that what is constant in a step, such as loading a model, decides: a tiny family says nothing of a large one.
"""


@dataclass(frozen=True)
class Estimate:
    """What a step that is not in the store is going to cost.

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
class Reads:
    """How much of the AnsNet's work a family takes, beside the same DesNets distilled from the AnsNet one by one.

    Attributes:
        tokens: Tokens that the AnsNet reads to teach them; for lessons that are kept once, however many read these.
        times: Steps in which it does.
        flops: What all models of the family take to make: ordering, teaching, distilling, interpolating, recovering.
        direct_tokens: For each DesNet, the tokens it would be distilled on.
        direct_flops: What these distillations would take, those that could share lessons sharing them.
    """

    tokens: int
    times: int
    flops: int
    direct_tokens: tuple[int, ...]
    direct_flops: int


@dataclass(frozen=True)
class Estimates:
    """What a plan is going to cost.

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


WeightsOf = Callable[[str], str | None]


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
    ansnet = chain.ansnet.structure
    every_step = whole or graph
    made = _structures(every_step, ansnet, chain.top.structure)
    works = _with_texts(_works(every_step, made), texts or {})
    pending = [plan for plan in steps if plan.state is not State.CACHED]
    runs = _runs(records(), _known_models(steps, made), chain.top.structure, weights_of) if pending else []
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
        _reads(chain, every_step, works),
    )


def peak_memory(graph: BuildGraph, chain: Chain) -> dict[str, int]:
    """Step id -> bytes that it needs at its peak; what a build keeps steps apart by."""
    made = _structures(graph, chain.ansnet.structure, chain.top.structure)
    return {step: work.memory for step, work in _works(graph, made).items()}


@dataclass(frozen=True)
class Written:
    """What a step writes.

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
    made = _structures(graph, chain.ansnet.structure, chain.top.structure)
    works = _with_texts(_works(graph, made), texts)
    found = {}
    for plan in steps:
        if plan.state is State.CACHED:
            continue
        step, most = plan.step, works[plan.step.id].disk or 0
        least = most if step.op not in ("corpus", "tokenizer", "generate") else texts.get(step.id, 0) // PACKED
        found[step.id] = Written(0 if plan.state is State.CONDITIONAL else least, most)
    return found


# -- work -------------------------------------------------------------------------------------------------------------


def _structures(graph: BuildGraph, ansnet: Structure, top: Structure) -> dict[str, Structure]:
    """Step id -> the model that the step makes; all but the AnsNet are like the chain's head."""
    made: dict[str, Structure] = {}
    # A checkpoint that an anchor starts from has the shape that it is aligned as.
    starts = {step.inputs["model"]: step.params for step in graph.steps if step.op == "align"}
    for step in graph.steps:
        inputs = {role: made[needed] for role, needed in step.inputs.items() if needed in made}
        if step.op == "source":
            model = made_structure("align", starts[step.id], {}, top) if step.id in starts else ansnet
        else:
            model = made_structure(step.op, step.params, inputs, top)
        if model is not None:
            made[step.id] = model
    return made


def _works(graph: BuildGraph, made: Mapping[str, Structure]) -> dict[str, Work]:
    works = {}
    segments = {step.id for step in graph.steps if is_segment(step.op, step.params)}
    for step in graph.steps:
        inputs = {role: made[needed] for role, needed in step.inputs.items() if needed in made}
        alone = step.inputs.get("model") == step.inputs.get("reference")
        nested = step.inputs.get("smaller") in segments
        work = work_of(
            step.op,
            step.params,
            inputs,
            made.get(step.id),
            settings=step.settings,
            source=step.sources.get("raw", ""),
            alone=alone,
            nested=nested,
        )
        # In a graph every model is known.
        assert work is not None
        works[step.id] = work
    return works


def _with_texts(works: Mapping[str, Work], texts: Mapping[str, int]) -> dict[str, Work]:
    """The same with the work of packing a text by its size: what the spec says of it is a limit at most."""
    return {
        step: replace(work, bytes=texts[step], disk=texts[step]) if step in texts else work
        for step, work in works.items()
    }


# -- runs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    record: ActionRecord
    amount: int | None


def _known_models(steps: Sequence[StepPlan], made: Mapping[str, Structure]) -> dict[str, Structure]:
    """Digest -> model, of the results of this plan that are in the store."""
    return {plan.output: made[plan.step.id] for plan in steps if plan.output is not None and plan.step.id in made}


def _once(records: Iterable[ActionRecord]) -> Iterable[ActionRecord]:
    """Every run once: one of an older version of colbuild stands in the store under two keys."""
    return {(record.step, record.output, record.built_at, record.seconds): record for record in records}.values()


def _runs(
    records: Iterable[ActionRecord], models: Mapping[str, Structure], like: Structure, weights_of: WeightsOf
) -> list[_Run]:
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
            made = known.get(record.output) or made_structure(record.op, record.params, inputs, like)
            alone = read.get("model") == read.get("reference")
            nested = read.get("smaller") in segments
            work = work_of(record.op, record.params, inputs, made, alone=alone, nested=nested)
            if is_segment(record.op, record.params):
                segments |= {record.output, weights_of(record.output) or record.output}
        except (KeyError, TypeError, ValueError):
            continue  # written by another version of colbuild, with other parameters: it says nothing of this one
        if made is not None:
            known.setdefault(record.output, made)
            known.setdefault(weights_of(record.output) or record.output, made)
        runs.append(_Run(record, work.amount if work else None))
    return runs


def _estimate(plan: StepPlan, work: Work, runs: Sequence[_Run], speed: Callable[[], MachineSpeed]) -> Estimate:
    seconds, basis, count = _time(plan, work, runs, speed)
    conditional = plan.state is State.CONDITIONAL
    return Estimate(plan.step.id, conditional, work.flops, seconds, basis, count, work.disk, work.memory)


def _time(
    plan: StepPlan, work: Work, runs: Sequence[_Run], speed: Callable[[], MachineSpeed]
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
        return median(run.record.seconds for run in same), f"median of {_runs_of(len(same))}", len(same)
    if amount:
        similar = [run for run in own if _close(run, amount)]
        named = "" if similar else f"{step.op} "
        similar = similar or [run for run in alike if _close(run, amount)]
        if similar:
            rate = median(run.record.seconds / (run.amount or amount) for run in similar)
            return rate * amount, f"median of {_runs_of(len(similar), named)}, scaled", len(similar)
        if work.flops is not None:
            rate = FLOPS_SHARES[step.op] * speed().matrices
            told = f"from FLOPs at {_rounded(rate / 1e9)} GFLOP/s"
        else:
            rate = BYTE_SHARES[step.op] * speed().plain
            told = f"from bytes at {_rounded(rate / 1e6)} MB/s"
        return amount / rate, f"{told} by a micro-benchmark, uncalibrated", 0
    return None, "unknown: how much it reads is not told by the spec, and it never ran here", 0


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def _same_kind(run: _Run, params: Mapping[str, object]) -> bool:
    """Whether a run computed in the same way: other precisions take another time for the same work."""
    return _kind(run.record.params) == _kind(params)


def _kind(params: Mapping[str, object]) -> object:
    for part, key in (("profile", "precision"), ("recipe", "precision")):
        inner = params.get(part)
        if isinstance(inner, Mapping):
            return inner.get(key)
    return params.get("precision", params.get("format"))


def _close(run: _Run, amount: int) -> bool:
    return bool(run.amount) and 1 / SIMILAR <= amount / (run.amount or amount) <= SIMILAR


def _runs_of(count: int, op: str = "") -> str:
    return f"{count} {op}run" if count == 1 else f"{count} {op}runs"


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
    return f"median of {_runs_of(least)}" if least == most else f"medians of {least} to {most} runs"


# -- the AnsNet's part ------------------------------------------------------------------------------------------------


def _reads(chain: Chain, graph: BuildGraph, works: Mapping[str, Work]) -> Reads | None:
    """What the whole family takes of the AnsNet, whatever of it is in the store."""
    heads = {"source ansnet", "order ansnet"}
    by_ansnet = [
        _taught_tokens(step)
        for step in graph.steps
        if (step.inputs.get("teacher") in heads and "lessons" not in step.inputs and not _has_written(step))
        or step.op == "generate"
    ]
    recipes = {} if chain.bridge is None else {BRIDGE: chain.bridge.asked.recipe}
    recipes |= {anchor.name: recipe for anchor, recipe in zip(chain.anchors, chain.recipes, strict=True)}
    direct = []
    flops = 0
    kept = set()
    for placed in chain.desnets:
        nearest = placed.smaller or placed.larger
        if nearest.name == ANSNET:
            continue
        recipe = recipes[nearest.name]
        direct.append(trained_tokens(recipe))
        above, below = (
            forward_flops(model, recipe.sequence) for model in (chain.ansnet.structure, placed.member.structure)
        )
        if recipe.teacher == "cached":
            lessons = tuple(lessons_params(recipe, "").values())
            above = 0 if lessons in kept else above
            kept.add(lessons)
        flops += distillation_flops(direct[-1], above, below)
    if not direct:
        return None
    making = ("generate", "order", "align", "teach", "bridge", "distill", "interpolate", "recover")
    spent = sum(works[step.id].flops or 0 for step in graph.steps if step.op in making)
    return Reads(sum(by_ansnet), len(by_ansnet), spent, tuple(direct), flops)


def _has_written(step: Step) -> bool:
    """Whether a step's teacher says nothing of a text but what it has written in it."""
    return step.op == "bridge" and bool(step.params["recipe"]["loss"].get("across") == "seqkd")


def _taught_tokens(step: Step) -> int:
    """Tokens for which a step computes its teacher."""
    if step.op in ("generate", "align"):
        return int(step.params["tokens"])
    if step.op == "teach":
        return int(step.params["windows"]) * int(step.params["sequence"])
    return trained_tokens(recipe_of(step.params))
