"""The models that the steps of a graph make, and the work of each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from colbuild.arch import Structure
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.operation import Params, Scene, Work
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.members import ANSNET
from colbuild.plan.steps.operations import OPERATIONS


def _structures(graph: BuildGraph, chain: Chain, params: Mapping[str, Params]) -> dict[str, Structure]:
    """Step id -> the model that the step makes; all but the AnsNet are of the architecture of the chain's head."""
    top = chain.top.structure
    made = {graph.models[ANSNET]: chain.ansnet.structure} if ANSNET in graph.models else {}
    for step in graph.steps:
        given = OPERATIONS[step.op].inputs(params[step.id], top)
        made |= {step.inputs[role]: model for role, model in given.items()}
    for step in graph.steps:
        if step.id not in made:
            model = OPERATIONS[step.op].made(params[step.id], _inputs(step.inputs, made), top)
            if model is not None:
                made[step.id] = model
    return made


def works_of(graph: BuildGraph, chain: Chain, texts: Mapping[str, int]) -> tuple[dict[str, Structure], dict[str, Work]]:
    """(step id -> the model that the step makes, step id -> the step's work).

    Args:
        graph: The steps.
        chain: The family's models.
        texts: Step that packs a corpus -> bytes of text that it reads, where these are known: the spec has a limit at most.
    """
    # Reading parameters checks a recipe or a profile in each step: it is done once.
    params = {step.id: OPERATIONS[step.op].params.read(step.params) for step in graph.steps}
    made, works = _structures(graph, chain, params), {}
    nested = {step for step, read in params.items() if read.keeps_nested}
    for step in graph.steps:
        scene = Scene(
            _inputs(step.inputs, made),
            made.get(step.id),
            step.settings,
            step.sources.get("raw", ""),
            alone=step.inputs.get("model") == step.inputs.get("reference"),
            nested=step.inputs.get("smaller") in nested,
        )
        work = OPERATIONS[step.op].work_of(params[step.id], scene)
        # In a graph every model is known.
        assert work is not None
        works[step.id] = replace(work, bytes=texts[step.id], disk=texts[step.id]) if step.id in texts else work
    return made, works


def _inputs(inputs: Mapping[str, str], made: Mapping[str, Structure]) -> dict[str, Structure]:
    return {role: made[needed] for role, needed in inputs.items() if needed in made}
