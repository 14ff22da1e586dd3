"""Compares the AnsNet's work for a family with distilling its DesNets one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from colbuild.arch import forward_flops
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.step import step_id
from colbuild.plan.operation import Work
from colbuild.plan.shapes.bridge_shape import BRIDGE
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.shapes.route import distillation_flops
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.plan.workload.training import lessons_params, trained_tokens, written_flops

_ABOUT: Final = 0.05
"""Costs that differ by less than this share count as equal: both are estimates."""

Cheaper = Literal["chain", "direct", "equal"]

_HEADS: Final = frozenset(step_id(op, ANSNET) for op in ("source", "order"))


@dataclass(frozen=True)
class Reads:
    """The AnsNet's work for a family, compared with distilling its DesNets one by one.

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

    @property
    def cheaper(self) -> Cheaper:
        """Which of the two takes less compute: making the family by its chain, or distilling each DesNet directly."""
        if abs(self.direct_flops - self.flops) <= _ABOUT * self.flops:
            return "equal"
        return "chain" if self.flops < self.direct_flops else "direct"


def ansnet_reads(chain: Chain, graph: BuildGraph, works: Mapping[str, Work]) -> Reads | None:
    """Returns the AnsNet's reads for the whole family, independent of the store."""
    by_ansnet = []
    for step in graph.steps:
        operation = OPERATIONS[step.op]
        if step.inputs.get(operation.taught_by) in _HEADS and "lessons" not in step.inputs:
            tokens = operation.params.read(step.params).taught_tokens
            by_ansnet += [tokens] if tokens else []
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
        flops += distillation_flops(direct[-1], above, below) + written_flops(recipe, placed.member.structure)
    if not direct:
        return None
    making = [step for step in graph.steps if OPERATIONS[step.op].counts_as_making]
    spent = sum(works[step.id].flops or 0 for step in making)
    return Reads(sum(by_ansnet), len(by_ansnet), spent, tuple(direct), flops)
