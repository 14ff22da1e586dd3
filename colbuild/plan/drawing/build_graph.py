"""Draws the steps of a family with solved shapes, in topological order.

Each kind of step draws its own (`colbuild.plan.steps`); this module puts them together.

::

    source ansnet ─┬─> corpus ansnet-train ─> order ansnet ─┐                  with a bridge; without, corpus train is in
                   ├─> tokenizer ─> corpus train ───────────┴─> bridge ─> …    the AnsNet's tokens and starts the chain
                   └─> generate train: text that the AnsNet writes

    source ─> corpus ─> order ─> distill a100 ─> distill a76 ─> …            the route along the chain, once
                                      │             init: puts a source and an align before a distill
                                      └──────┬──────┘                        teacher: cached puts a teach before a training
                                    interpolate phone ─> recover phone       each DesNet
                                             ├─> evaluate phone
                                             └─> export phone/phone-int8
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from colbuild.plan.drawing.draft import Draft, Drawn, FamilyPath, FamilyTexts, Model
from colbuild.plan.drawing.parts import with_every_part
from colbuild.plan.drawing.step import Step
from colbuild.plan.shapes.bridge_shape import BRIDGE
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.members import ANSNET, HEADS, Member
from colbuild.plan.shapes.package_size import limit_of
from colbuild.plan.steps import align, bridge, corpus, distill, interpolate, order, recover, source, tokenizer
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.plan.steps.teach import chat_input, draw_lessons
from colbuild.spec.model.device import Profile
from colbuild.spec.model.family import DesNet, Family

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True)
class BuildGraph:
    """Everything a family's build does.

    Attributes:
        steps: In an order in which each comes after what it needs.
        origins: Step id -> where its parameters were asked for: first key of `params` -> path in the resolved family. The
            empty key is the step's own place.
        models: Model name -> id of the step that makes it.
        metrics: Model name -> id of the step that measures it.
        packages: (model name, profile name) -> id of the step that packs it.
        references: Model name -> name of the model that it is compared with token by token.
        others: Model name -> ids of further steps that it gets.
    """

    steps: tuple[Step, ...]
    origins: Mapping[str, Mapping[str, FamilyPath]]
    models: Mapping[str, str]
    metrics: Mapping[str, str]
    packages: Mapping[tuple[str, str], str]
    references: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def by_id(self) -> Mapping[str, Step]:
        """Step id -> step, in the same order."""
        return {step.id: step for step in self.steps}


def build_graph(family: Family, chain: Chain, versions: Mapping[str, str]) -> BuildGraph:
    """Draws the steps of a family.

    Args:
        family: The resolved spec.
        chain: Its members' shapes and places.
        versions: Exact versions of torch, onnx and onnxruntime; they are part of an export's key.
    """
    draft = Draft()
    models = {ANSNET: source.draw(draft, family)}
    texts = _texts(draft, family, chain, models[ANSNET])
    if chain.bridge is not None:
        models[BRIDGE] = bridge.draw(draft, family, chain.bridge, models[ANSNET], texts)
    if chain.desnets:
        models |= _chain(draft, family, chain, models[chain.top.name], texts.train)
    for index, placed in enumerate(chain.desnets):
        models[placed.member.name] = _desnet(draft, family, chain, index, models, texts.train)
    # Token by token only models of one vocabulary compare, and two of as many tokens may still be two.
    head = chain.top.name if chain.bridge is not None and chain.bridge.across else ANSNET
    finished = [
        Model(
            name,
            models[name],
            path,
            profiles,
            reference=models[ANSNET if name == ANSNET else head],
            train=texts.ansnet_train if name == ANSNET else texts.train,
            held=texts.ansnet_held if name == ANSNET else texts.held,
        )
        for name, path, profiles in _wanted(family, chain)
        if name in models
    ]
    drawn = Drawn(draft, family, versions)
    for model in finished:
        for operation in OPERATIONS.values():
            operation.draws(drawn, model)
    return BuildGraph(
        with_every_part(draft.steps.values()),
        draft.origins,
        {model.name: model.made_by for model in finished},
        drawn.metrics,
        drawn.packages,
        {name: ANSNET if name == ANSNET else head for name in drawn.metrics},
        drawn.others,
    )


def _wanted(family: Family, chain: Chain) -> Iterator[tuple[str, FamilyPath, tuple[Profile, ...]]]:
    """(name, where it was asked for, profiles) of every model of a family, whether or not it is built."""
    yield ANSNET, ("ansnet",), family.ansnet.exports
    yield BRIDGE, (BRIDGE,), ()
    for index, anchor in enumerate(chain.anchors):
        yield anchor.name, _anchor_path(chain, index), ()
    for index, desnet in enumerate(family.desnets):
        yield desnet.name, ("desnets", index), _promised(desnet)


def _texts(draft: Draft, family: Family, chain: Chain, ansnet: str) -> FamilyTexts:
    """The corpora of a family, and before them its tokenizer, if that is not the AnsNet's."""
    if chain.bridge is None or not chain.bridge.across:
        train, held = corpus.draw_pair(draft, family, ansnet, ansnet, "")
        return FamilyTexts(train, held, train, held, ansnet)
    made = tokenizer.draw(draft, family, chain.bridge, ansnet)
    ours = corpus.draw_pair(draft, family, ansnet, made, "")
    return FamilyTexts(*ours, *corpus.draw_pair(draft, family, ansnet, ansnet, "ansnet-"), made)


def sources(graph: BuildGraph) -> Sequence[str]:
    """Every source URI that the graph reads, once each."""
    return list(dict.fromkeys(uri for step in graph.steps for uri in step.sources.values()))


def digraph(steps: Sequence[Step]) -> networkx.DiGraph[str]:
    """The steps as a networkx graph; an edge runs from a step to those that need it."""
    import networkx  # expensive to import, and most plans do not need it

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    for step in steps:
        graph.add_node(step.id)
        graph.add_edges_from((needed, step.id) for needed in step.needs)
    return graph


def _chain(draft: Draft, family: Family, chain: Chain, top: str, text: str) -> dict[str, str]:
    made = {_ORDERED: order.draw(draft, family, chain.top.name, top, text)}
    for index, member in enumerate(chain.anchors):
        if member.name not in chain.teachers:
            continue
        path = _anchor_path(chain, index)
        recipe, teacher, split = chain.recipes[index], chain.teachers[member.name], family.data.train.split
        inputs = {"teacher": made[_as_start(teacher)], "corpus": text}
        start = None if chain.automatic else family.anchors[index].init
        if start is not None:
            inputs["start"] = align.draw(draft, start, member, path, inputs, split)
        inputs |= draw_lessons(draft, recipe, (*path, "recipe"), teacher.name, member.name, inputs, split)
        inputs |= chat_input(recipe, inputs)
        made[member.name] = distill.draw(draft, chain, index, path, inputs, split)
    return made


def _anchor_path(chain: Chain, index: int) -> FamilyPath:
    """Where an anchor was asked for; one that colbuild placed itself was by `anchors: auto`."""
    return ("automatic",) if chain.automatic else ("anchors", index)


def _promised(desnet: DesNet) -> tuple[Profile, ...]:
    """A DesNet's profiles; its own `max_package` is a limit of each, so that a broken promise fails the build."""
    return tuple(
        profile.model_copy(
            update={"limits": profile.limits.model_copy(update={"max_package": limit_of(desnet, profile)})}
        )
        for profile in desnet.exports
    )


_ORDERED = "head (ordered)"


def _as_start(member: Member) -> str:
    """The name, among models, of what others are made from: the chain's head in its sorted form, an anchor as it is."""
    return _ORDERED if member.name in HEADS else member.name


def _desnet(draft: Draft, family: Family, chain: Chain, index: int, models: Mapping[str, str], text: str) -> str:
    desnet, placed = family.desnets[index], chain.desnets[index]
    path: FamilyPath = ("desnets", index)
    split = family.data.train.split
    made = models[_as_start(placed.larger)]
    if placed.smaller is not None:
        ends = {"larger": made}
        if placed.mixed:
            ends["smaller"] = models[placed.smaller.name]
        made = interpolate.draw(draft, placed.member, desnet.interpolate, path, ends, text, family.data.train)
    if desnet.recover is None:
        return made
    # A DesNet that equals an anchor would be its own teacher and learn nothing: it learns from that anchor's teacher.
    above = placed.larger if placed.smaller is not None else chain.teachers.get(placed.larger.name, placed.larger)
    inputs = {"start": made, "teacher": models[_as_start(above)], "corpus": text}
    inputs |= draw_lessons(draft, desnet.recover, (*path, "recover"), above.name, desnet.name, inputs, split)
    inputs |= chat_input(desnet.recover, inputs)
    return recover.draw(draft, desnet.name, desnet.recover, path, inputs, split)
