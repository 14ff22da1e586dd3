"""From a family with solved shapes to the steps that build it, in an order that can be run.

What comes before the chain, texts, vocabulary and bridge, is drawn by `colbuild.plan.drawing.head_steps`.

::

    source ─> corpus ─> order ─> distill a100 ─> distill a76 ─> …            the route along the chain, once
                                      │             init: puts a source and an align before a distill
                                      └──────┬──────┘                        teacher: cached puts a teach before a training
                                    interpolate phone ─> recover phone       each DesNet
                                             ├─> evaluate phone
                                             └─> export phone/phone-int8
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from colbuild.plan.drawing.draft import SPLIT, Draft, FamilyPath, draw_lessons
from colbuild.plan.drawing.head_steps import BEGIN, begin_params, draw_bridge, draw_order, draw_texts
from colbuild.plan.drawing.package_steps import draw_export, draw_quantised
from colbuild.plan.drawing.step import Step
from colbuild.plan.drawing.training_params import distill_params, recipe_params, settings
from colbuild.plan.shapes.bridge_shape import BRIDGE
from colbuild.plan.shapes.chain import Chain
from colbuild.plan.shapes.members import ANSNET, HEADS, Member
from colbuild.plan.shapes.package_size import limit_of
from colbuild.spec.model.device import Profile
from colbuild.spec.model.family import DesNet, EvalData, Family, Start

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
    """

    steps: tuple[Step, ...]
    origins: Mapping[str, Mapping[str, FamilyPath]]
    models: Mapping[str, str]
    metrics: Mapping[str, str]
    packages: Mapping[tuple[str, str], str]
    references: Mapping[str, str] = field(default_factory=dict)


def build_graph(family: Family, chain: Chain, versions: Mapping[str, str]) -> BuildGraph:
    """Draws the steps of a family.

    Args:
        family: The resolved spec.
        chain: Its members' shapes and places.
        versions: Exact versions of torch, onnx and onnxruntime; they are part of an export's key.
    """
    draft = Draft()
    source = draft.add(
        Step("source ansnet", "source", begin_params(family), sources={"raw": family.ansnet.source}),
        {"": ("ansnet", "source"), "begin": BEGIN},
    )
    texts = draw_texts(draft, family, chain, source)
    train = texts.train
    models = {ANSNET: source}
    if chain.bridge is not None:
        models |= draw_bridge(draft, family, chain.bridge, source, texts)
    if chain.desnets:
        models |= _chain(draft, family, chain, models[chain.top.name], train)
    for index, placed in enumerate(chain.desnets):
        models[placed.member.name] = _desnet(draft, family, chain, index, models, train)
    wanted: dict[str, tuple[FamilyPath, tuple[Profile, ...]]] = {ANSNET: (("ansnet",), family.ansnet.exports)}
    wanted |= {BRIDGE: ((BRIDGE,), ())} if chain.bridge is not None else {}
    wanted |= {
        anchor.name: (_anchor_path(chain, i), ()) for i, anchor in enumerate(chain.anchors) if anchor.name in models
    }
    wanted |= {desnet.name: (("desnets", i), _promised(desnet)) for i, desnet in enumerate(family.desnets)}
    metrics: dict[str, str] = {}
    packages: dict[tuple[str, str], str] = {}
    measured: dict[str, str] = {}
    # Token by token only models of one vocabulary compare, and two of as many tokens may still be two.
    head = chain.top.name if chain.bridge is not None and chain.bridge.across else ANSNET
    for name, (path, profiles) in wanted.items():
        # A DesNet that equals an anchor is the same model: it is measured once.
        made_by = models[name]
        if made_by not in measured:
            against, held = (source, texts.ansnet_held) if name == ANSNET else (models[head], texts.held)
            measured[made_by] = _evaluate(draft, name, path, made_by, against, held, family.data.eval)
        metrics[name] = measured[made_by]
        for place, profile in enumerate(profiles):
            train, held = (texts.ansnet_train, texts.ansnet_held) if name == ANSNET else (texts.train, texts.held)
            where: FamilyPath = (*path, "exports", place)
            step = f"{name}/{profile.name}"
            inputs = {"model": made_by, "heldout": held}
            if profile.recover is not None:
                inputs["rounded"] = draw_quantised(draft, step, profile, made_by, train, where, family.data.train.split)
            elif profile.fitted:
                inputs["corpus"] = train
            packages[name, profile.name] = draw_export(draft, step, profile, inputs, where, versions, family.data)
    makers = {name: models[name] for name in wanted}
    references = {name: ANSNET if name == ANSNET else head for name in metrics}
    return BuildGraph(tuple(draft.steps.values()), draft.origins, makers, metrics, packages, references)


def sources(graph: BuildGraph) -> Sequence[str]:
    """Every source URI that the graph reads, once each."""
    return list(dict.fromkeys(uri for step in graph.steps for uri in step.sources.values()))


def digraph(steps: Sequence[Step]) -> networkx.DiGraph[str]:
    """The steps as a networkx graph; an edge runs from a step to those that need it."""
    import networkx  # dear to import, and most plans ask nothing of it

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    for step in steps:
        graph.add_node(step.id)
        graph.add_edges_from((needed, step.id) for needed in step.needs)
    return graph


def _chain(draft: Draft, family: Family, chain: Chain, top: str, corpus: str) -> dict[str, str]:
    made = {_ORDERED: draw_order(draft, family, chain.top.name, top, corpus)}
    for index, member in enumerate(chain.anchors):
        if member.name not in chain.teachers:
            continue
        path = _anchor_path(chain, index)
        recipe, teacher, split = chain.recipes[index], chain.teachers[member.name], family.data.train.split
        inputs = {"teacher": made[_as_start(teacher)], "corpus": corpus}
        start = None if chain.automatic else family.anchors[index].init
        if start is not None:
            inputs["start"] = _aligned(draft, start, member, path, inputs, split)
        inputs |= draw_lessons(draft, recipe, (*path, "recipe"), teacher.name, member.name, inputs, split)
        params = distill_params(chain, index, split)
        places: dict[str, FamilyPath] = {"": path, "shape": path, "recipe": (*path, "recipe"), "split": SPLIT}
        if "interval" in params:
            places["interval"] = (*path, "recipe", "elastic")
        made[member.name] = draft.add(
            Step(f"distill {member.name}", "distill", params, inputs=inputs, settings=settings(recipe)), places
        )
    return made


def _aligned(
    draft: Draft, start: Start, member: Member, path: FamilyPath, inputs: Mapping[str, str], split: str
) -> str:
    """The checkpoint that an anchor starts from, in the coordinates of its teacher."""
    place: FamilyPath = (*path, "init")
    source = draft.add(
        Step(f"source {member.name}", "source", {}, sources={"raw": start.checkpoint}), {"": (*place, "checkpoint")}
    )
    params = {
        "shape": asdict(member.structure.shape),
        "align": start.align,
        "tokens": start.tokens,
        "split": split,
    }
    return draft.add(
        Step(f"align {member.name}", "align", params, inputs={"model": source, **inputs}),
        {"": place, "shape": path, "align": (*place, "align"), "tokens": (*place, "tokens"), "split": SPLIT},
    )


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


def _desnet(draft: Draft, family: Family, chain: Chain, index: int, models: Mapping[str, str], corpus: str) -> str:
    desnet, placed = family.desnets[index], chain.desnets[index]
    path: FamilyPath = ("desnets", index)
    larger = models[_as_start(placed.larger)]
    made = larger
    split = family.data.train.split
    if placed.smaller is not None:
        how = desnet.interpolate
        params = {"shape": asdict(placed.member.structure.shape), **how.params()}
        inputs = {"larger": larger}
        if placed.mixed:
            inputs["smaller"] = models[placed.smaller.name]
        if how.reads_text:
            params["split"], inputs["corpus"] = split, corpus
        places = {key: (*path, "interpolate", key) for key in how.params()}
        made = draft.add(
            Step(f"interpolate {desnet.name}", "interpolate", params, inputs=inputs),
            {"": path, "shape": path, **places, "split": SPLIT},
        )
    if desnet.recover is None:
        return made
    # A DesNet that equals an anchor would be its own teacher and learn nothing: it learns from that anchor's teacher.
    above = placed.larger if placed.smaller is not None else chain.teachers.get(placed.larger.name, placed.larger)
    inputs = {"start": made, "teacher": models[_as_start(above)], "corpus": corpus}
    inputs |= draw_lessons(draft, desnet.recover, (*path, "recover"), above.name, desnet.name, inputs, split)
    return draft.add(
        Step(
            f"recover {desnet.name}",
            "recover",
            {"recipe": recipe_params(desnet.recover), "split": split},
            inputs=inputs,
            settings=settings(desnet.recover),
        ),
        {"": path, "recipe": (*path, "recover"), "split": SPLIT},
    )


def _evaluate(draft: Draft, name: str, path: FamilyPath, model: str, ansnet: str, corpus: str, data: EvalData) -> str:
    return draft.add(
        Step(
            f"evaluate {name}",
            "evaluate",
            {"tokens": data.tokens, "split": data.split},
            inputs={"model": model, "reference": ansnet, "corpus": corpus},
        ),
        {"": path, "tokens": ("data", "eval", "tokens"), "split": ("data", "eval", "split")},
    )
