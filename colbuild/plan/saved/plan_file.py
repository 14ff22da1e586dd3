"""A plan as a file: `plan --json` prints it, `plan -o` writes it, and `build --plan` checks it.

The form is versioned by `format`; docs/schema/plan.v1.json is generated from the classes here. Within a version fields may be
added, never changed or removed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from colbuild.documents import MalformedError, read_json_file, shallow
from colbuild.errors import BuildError
from colbuild.hashing import canonical_json, hash_bytes
from colbuild.plan.changes.states import StepPlan
from colbuild.plan.cost.ansnet_reads import Reads
from colbuild.plan.cost.estimate import Estimates
from colbuild.plan.drawing.build_graph import BuildGraph, sources
from colbuild.plan.saved.plan_comparisons import PlanPart, SavedAlternatives, SavedReads
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.members import Member
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.spec import LoadedFamily
from colbuild.spec.model.decides import deciding
from colbuild.spec.project.schema import schema_of

FORMAT: Final = "colbuild.plan.v1"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SavedSpec(PlanPart):
    """The family that was planned, with every recipe, profile and default filled in."""

    path: Annotated[str, Field(description="The family's file, relative to the project's root.")]
    sha256: Annotated[Sha256, Field(description="Digest of 'resolved': comments and layout of the files do not count.")]
    resolved: Annotated[dict[str, Any], Field(description="Every value of the family that decides a result.")]


class SavedModel(PlanPart):
    """A model of the family: its size and solved shape."""

    name: Annotated[str, Field(description="Its name; 'ansnet' is the pretrained ancestor.")]
    parameters: Annotated[int, Field(description="Stored parameters; tied embeddings counted once.")]
    shape: Annotated[dict[str, int], Field(description="Lengths of its axes.")]


class SavedDistillation(PlanPart):
    """An anchor that is built, and its teacher."""

    student: Annotated[str, Field(description="The anchor.")]
    teacher: Annotated[str, Field(description="The AnsNet or a larger anchor.")]
    flops: Annotated[int, Field(description="Its estimated FLOPs.")]


class SavedUnbuilt(PlanPart):
    """An anchor that is not built."""

    name: Annotated[str, Field(description="The anchor.")]
    why: Annotated[str, Field(description="The reason, for people.")]


class SavedEstimate(PlanPart):
    """The estimated cost of a step; not a measurement."""

    seconds: Annotated[float | None, Field(description="The estimated time; null if unknown.")]
    basis: Annotated[str, Field(description="The basis of 'seconds', for people.")]
    runs: Annotated[int, Field(description="The number of recorded runs behind 'seconds'; 0 means uncalibrated.")]
    flops: Annotated[int | None, Field(description="Its FLOPs; null if its time does not depend on them.")]
    disk: Annotated[int | None, Field(description="Bytes of its result; null if they depend on an unfetched source.")]
    memory: Annotated[int, Field(description="Bytes of memory that it needs at its peak.")]


class SavedStep(PlanPart):
    """A step and its state."""

    id: Annotated[str, Field(description="Its name, as in 'distill a100'.")]
    op: Annotated[str, Field(description="Its operation.")]
    state: Annotated[
        Literal["cached", "new", "changed", "conditional"],
        Field(description="'conditional' runs only if the result of an earlier step changes."),
    ]
    why: Annotated[str, Field(description="The reason, for people.")]
    key: Annotated[Sha256 | None, Field(description="Its action key; null while an input is not known.")]
    result: Annotated[Sha256 | None, Field(description="Digest of its result, if it is in the store.")]
    last_seconds: Annotated[
        float | None, Field(description="Seconds of its last run on this machine; null if it never ran.")
    ]
    estimate: Annotated[SavedEstimate | None, Field(description="Its estimate; null if it is in the store.")]


class SavedTotals(PlanPart):
    """The estimated cost of the whole plan."""

    seconds_least: Annotated[float, Field(description="If no conditional step has to run.")]
    seconds_most: Annotated[float, Field(description="If all of them have to.")]
    basis: Annotated[str, Field(description="The basis of the times, for people.")]
    untold: Annotated[int, Field(description="The number of steps without an estimate.")]
    disk: Annotated[int, Field(description="Bytes written to the store, at most.")]
    memory: Annotated[int, Field(description="The largest number of bytes of memory needed at one time.")]


class SavedPlan(PlanPart):
    """A plan of a family, complete enough to detect later changes of spec, sources and store."""

    format: Annotated[Literal["colbuild.plan.v1"], Field(description="The version of this form.")]
    family: Annotated[str, Field(description="The family's name.")]
    targets: Annotated[tuple[str, ...], Field(description="The selected targets; empty for the whole family.")]
    spec: Annotated[SavedSpec, Field(description="The family's file and values.")]
    sources: Annotated[
        dict[str, Sha256 | None],
        Field(description="Source -> digest of its content; null if it must be fetched first."),
    ]
    epochs: Annotated[dict[str, int], Field(description="Operation -> the version of its meaning.")]
    versions: Annotated[
        dict[str, str], Field(description="Library -> version, of those that decide an exported graph.")
    ]
    models: Annotated[tuple[SavedModel, ...], Field(description="The AnsNet, the anchors, the DesNets.")]
    route: Annotated[tuple[SavedDistillation, ...], Field(description="The distillations, in order.")]
    not_built: Annotated[tuple[SavedUnbuilt, ...], Field(description="Anchors that are not built.")]
    warnings: Annotated[tuple[str, ...], Field(description="Warnings.")]
    steps: Annotated[tuple[SavedStep, ...], Field(description="In an order in which they can run.")]
    totals: Annotated[SavedTotals, Field(description="The sum of the estimates.")]
    ansnet_reads: Annotated[SavedReads | None, Field(description="Null if every DesNet is the AnsNet.")]
    instead: Annotated[
        SavedAlternatives | None, Field(description="The AnsNet's own packages of fewer bits; null in older plans.")
    ]


def saved_plan(
    loaded: LoadedFamily,
    chain: Chain,
    graph: BuildGraph,
    steps: tuple[StepPlan, ...],
    estimates: Estimates,
    *,
    targets: tuple[str, ...],
    source_digest: Callable[[str], str | None],
) -> SavedPlan:
    """A plan with everything that decides it.

    Args:
        loaded: The family.
        chain: Its models.
        graph: The steps of the plan.
        steps: What each is going to do.
        estimates: What they cost.
        targets: What was asked for.
        source_digest: URI -> digest of its content, None when that is not known without fetching it.
    """
    family = deciding(loaded.family)
    totals = SavedTotals(
        seconds_least=estimates.least,
        seconds_most=estimates.most,
        basis=estimates.basis,
        untold=estimates.untold,
        disk=estimates.disk,
        memory=estimates.memory,
    )
    return SavedPlan(
        format=FORMAT,
        family=loaded.family.name,
        targets=targets,
        spec=SavedSpec(
            path=loaded.path.relative_to(loaded.root).as_posix(),
            sha256=hash_bytes(canonical_json(family)),
            resolved=family,
        ),
        sources={uri: source_digest(uri) for uri in sources(graph)},
        epochs={step.op: OPERATIONS[step.op].epoch for step in graph.steps},
        versions={name: text for step in graph.steps for name, text in step.params.get("versions", {}).items()},
        models=tuple(
            _model(member)
            for member in (
                chain.ansnet,
                *(() if chain.bridge is None else (chain.top,)),
                *chain.anchors,
                *(placed.member for placed in chain.desnets),
            )
        ),
        route=tuple(
            SavedDistillation(student=step.student.name, teacher=step.teacher.name, flops=step.flops)
            for step in chain.route
        ),
        not_built=tuple(SavedUnbuilt(name=unbuilt.anchor.name, why=unbuilt.reason) for unbuilt in chain.unbuilt),
        warnings=chain.warnings,
        steps=tuple(_step(step, estimates) for step in steps),
        totals=totals,
        ansnet_reads=_reads(estimates.reads) if estimates.reads else None,
        instead=SavedAlternatives.model_validate(asdict(estimates.instead)) if estimates.instead else None,
    )


def _reads(reads: Reads) -> SavedReads:
    return SavedReads(**asdict(reads), cheaper=reads.cheaper)


def _model(member: Member) -> SavedModel:
    return SavedModel(name=member.name, parameters=member.parameters, shape=asdict(member.structure.shape))


def _step(plan: StepPlan, estimates: Estimates) -> SavedStep:
    found = estimates.steps.get(plan.step.id)
    told = None
    if found is not None:
        told = SavedEstimate(
            seconds=None if found.seconds is None else round(found.seconds, 1),
            basis=found.basis,
            runs=found.runs,
            flops=found.flops,
            disk=found.disk,
            memory=found.memory,
        )
    return SavedStep(
        id=plan.step.id,
        op=plan.step.op,
        state=plan.state.name.lower(),  # type: ignore[arg-type]
        why=plan.why,
        key=plan.key,
        result=plan.output,
        last_seconds=plan.seconds,
        estimate=told,
    )


def plan_schema_text() -> str:
    """The JSON schema of a saved plan, as the text of its file."""
    return json.dumps(schema_of(SavedPlan, "colbuild plan"), indent=2, ensure_ascii=False) + "\n"


def write_plan(plan: SavedPlan, path: Path) -> None:
    """Writes a plan's file.

    Raises:
        BuildError: It cannot be written.
    """
    text = json.dumps(plan.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BuildError(f"the plan cannot be saved as {path}: {error.strerror}", hint="name a file with -o") from None


def read_plan(path: Path) -> SavedPlan:
    """Reads a plan's file.

    Raises:
        BuildError: There is none, or it is no plan that this version can read.
    """
    hint = "save a plan with 'colbuild plan -o FILE'"
    try:
        value = shallow(read_json_file(path))
    except OSError as error:
        raise BuildError(f"the saved plan {path} cannot be read: {error.strerror}", hint=hint) from None
    except MalformedError as error:
        raise BuildError(f"{path} is not a saved plan: {error}", hint=hint) from None
    form = value.get("format") if isinstance(value, dict) else None
    if form != FORMAT:
        found = f"its format is '{form}'" if form else "it names no format"
        raise BuildError(f"{path} is not a saved plan of this version: {found}, not '{FORMAT}'", hint=hint)
    try:
        return SavedPlan.model_validate_json(json.dumps(_with_later_fields(value)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BuildError(f"the saved plan {path} is damaged: {where}: {first['msg']}", hint=hint) from None


def _with_later_fields(value: dict[str, Any]) -> dict[str, Any]:
    """A plan with the fields that a later colbuild of the same version added to its form."""
    reads = value.get("ansnet_reads")
    if isinstance(reads, dict):
        value = {**value, "ansnet_reads": {"cheaper": None, **reads}}
    return {"instead": None, **value}
