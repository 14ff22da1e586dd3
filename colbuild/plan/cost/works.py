"""The models that the steps of a graph make, and the work of each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from colbuild.arch import Structure
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.operation import Scene, Work
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.steps.operations import OPERATIONS


def structures(graph: BuildGraph, chain: Chain) -> dict[str, Structure]:
    """Step id -> the model that the step makes; all but the AnsNet are of the architecture of the chain's head."""
    top = chain.top.structure
    made = {graph.models[ANSNET]: chain.ansnet.structure} if ANSNET in graph.models else {}
    for step in graph.steps:
        operation = OPERATIONS[step.op]
        given = operation.inputs(operation.params.read(step.params), top)
        made |= {step.inputs[role]: model for role, model in given.items()}
    for step in graph.steps:
        if step.id not in made:
            model = OPERATIONS[step.op].model_of(step.params, _inputs(step.inputs, made), top)
            if model is not None:
                made[step.id] = model
    return made


def works_of(graph: BuildGraph, made: Mapping[str, Structure], texts: Mapping[str, int]) -> dict[str, Work]:
    """Step id -> the step's work.

    Args:
        graph: The steps.
        made: Step id -> the model that the step makes.
        texts: Step that packs a corpus -> bytes of text that it reads, where these are known: the spec has a limit at most.
    """
    works = {}
    nested = {step.id for step in graph.steps if OPERATIONS[step.op].params.read(step.params).keeps_nested}
    for step in graph.steps:
        scene = Scene(
            _inputs(step.inputs, made),
            made.get(step.id),
            step.settings,
            step.sources.get("raw", ""),
            alone=step.inputs.get("model") == step.inputs.get("reference"),
            nested=step.inputs.get("smaller") in nested,
        )
        work = OPERATIONS[step.op].work_of(step.params, scene)
        # In a graph every model is known.
        assert work is not None
        works[step.id] = replace(work, bytes=texts[step.id], disk=texts[step.id]) if step.id in texts else work
    return works


def _inputs(inputs: Mapping[str, str], made: Mapping[str, Structure]) -> dict[str, Structure]:
    return {role: made[needed] for role, needed in inputs.items() if needed in made}
