"""The table of a family: one row for each model, with its size, quality and packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colbuild.arch import Shape
from colbuild.bounds import MANIFEST_BYTES
from colbuild.documents import MalformedError, read_regular
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.family_plan import FamilyPlan, Workspace
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.members import ANSNET, Member, Placed
from colbuild.plan.steps.export import MANIFEST
from colbuild.run.building.measured import metrics_in, package_bits_per_byte, package_facts
from colbuild.store import ActionRecord
from colbuild.train.watching.ledger import Ledger, ledger_from_json


@dataclass(frozen=True)
class PackageRow:
    """A package: its profile, the bytes in its folder, where that is, and its bits per byte of held-out text, if measured."""

    profile: str
    size: int
    folder: Path
    bits_per_byte: float | None = None


@dataclass(frozen=True)
class Row:
    """A model of the family; what has not been built or measured yet is None.

    Attributes:
        name: The model's name.
        kind: "AnsNet", "anchor" or "DesNet".
        origin: What it was made from: "a100" distilled it, "a100 <> a76" it lies between, "= a76" it equals; empty for the
            AnsNet.
        shape: Its shape.
        parameters: Stored parameters.
        bits_per_byte: On held-out text.
        perplexity: On held-out text, per token.
        agreement: How often its likeliest next token is the reference's, 0 to 1.
        kl: KL(reference || model) on held-out text, in nats per token.
        packages: Those that are built and lie in `out/`.
        unplaced: Profiles of those that are in the store, and not, or not in this version, in `out/`.
        ledger: Of the training that made it, if one did.
        reference: What it is compared with token by token: the AnsNet, or the bridge where its vocabulary is another.
    """

    name: str
    kind: str
    origin: str
    shape: Shape
    parameters: int
    bits_per_byte: float | None
    perplexity: float | None
    agreement: float | None
    kl: float | None
    packages: tuple[PackageRow, ...]
    ledger: Ledger | None = None
    reference: str = ANSNET
    unplaced: tuple[str, ...] = ()


def family_rows(
    chain: Chain,
    graph: BuildGraph,
    results: Mapping[str, Path],
    ledgers: Mapping[str, Mapping[str, Any]],
    out: Path,
) -> tuple[Row, ...]:
    """The lines of a family: the AnsNet, the anchors that are built, the DesNets.

    Args:
        chain: The family's members.
        graph: Its steps.
        results: Step id -> folder of its result, for the steps that have one.
        ledgers: Step id -> what its run noted of itself, for the same steps.
        out: The family's folder for packages.
    """
    members = [(chain.ansnet, "AnsNet", "")]
    members += [] if chain.bridge is None else [(chain.top, "bridge", ANSNET)]
    members += [(step.student, "anchor", step.teacher.name) for step in chain.route]
    members += [(placed.member, "DesNet", _origin(placed)) for placed in chain.desnets]
    return tuple(_row(*member, graph, results, ledgers, out) for member in members)


def family_status(plan: FamilyPlan, workspace: Workspace) -> tuple[Row, ...]:
    """One line for each model: what is known of it and lies in the store now."""
    every = (*plan.steps, *(plan.selection.left if plan.selection else ()))
    records = {step.step.id: workspace.store.lookup(step.key) for step in every if step.key is not None}
    return rows_of(plan, workspace, {step: record for step, record in records.items() if record is not None})


def family_shapes(plan: FamilyPlan, workspace: Workspace) -> tuple[Row, ...]:
    """One line for each model: its solved shape, and nothing of what was built."""
    return rows_of(plan, workspace, {})


def rows_of(plan: FamilyPlan, workspace: Workspace, records: Mapping[str, ActionRecord]) -> tuple[Row, ...]:
    """One line for each model, with what these records hold."""
    found = {step: workspace.store.files(record.output) for step, record in records.items()}
    graph = plan.selection.whole if plan.selection else plan.graph
    ledgers = {step: record.ledger for step, record in records.items()}
    return family_rows(plan.chain, graph, found, ledgers, workspace.out / plan.loaded.family.name)


def _origin(placed: Placed) -> str:
    if placed.smaller is None:
        return f"= {placed.larger.name}"
    return f"{placed.larger.name} <> {placed.smaller.name}" if placed.mixed else f"part of {placed.larger.name}"


def _row(
    member: Member,
    kind: str,
    origin: str,
    graph: BuildGraph,
    results: Mapping[str, Path],
    ledgers: Mapping[str, Mapping[str, Any]],
    out: Path,
) -> Row:
    metrics = metrics_in(results.get(graph.metrics.get(member.name, "")))
    built = {
        profile: results[step]
        for (model, profile), step in graph.packages.items()
        if model == member.name and step in results
    }
    folders = {profile: out / member.name / profile for profile in built}
    placed = {profile for profile, stored in built.items() if _is_placed(stored, folders[profile])}
    return Row(
        name=member.name,
        kind=kind,
        origin=origin,
        shape=member.structure.shape,
        parameters=member.parameters,
        bits_per_byte=metrics.get("bits_per_byte"),
        perplexity=metrics.get("perplexity"),
        agreement=metrics.get("top1_agreement"),
        kl=metrics.get("kl"),
        packages=tuple(
            PackageRow(profile, _size(stored), folders[profile], package_bits_per_byte(package_facts(stored), metrics))
            for profile, stored in built.items()
            if profile in placed
        ),
        ledger=ledger_from_json(ledgers.get(graph.models[member.name], {})),
        reference=graph.references.get(member.name, ANSNET),
        unplaced=tuple(profile for profile in built if profile not in placed),
    )


def _is_placed(stored: Path, folder: Path) -> bool:
    """Whether a package lies at its place: the manifest, which lists the digests of all its files, is the stored one."""
    if not (stored / MANIFEST).is_file():
        return folder.is_dir()
    try:
        return read_regular(folder / MANIFEST, MANIFEST_BYTES) == read_regular(stored / MANIFEST, MANIFEST_BYTES)
    except (OSError, MalformedError):
        return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
