"""Parts of a family by name: the step of `why`, and the steps of `--target`.

::

    --target watch       what makes, measures and packages watch ──────────┐
    --target +watch      ... and measures and packages all it comes from   ├─ and everything these need
    --target watch+      ... and everything made of it                     │
    --target watch/tiny  that package alone ───────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from colbuild.errors import ColbuildError
from colbuild.plan.drawing.build_graph import BuildGraph, digraph
from colbuild.plan.drawing.step import Step
from colbuild.spec.text.check import suggest

_MANY = 8
"""More names than this are not listed in a hint."""


class UnknownNameError(ColbuildError):
    """A name that stands for no step of the family, or for several."""


@dataclass(frozen=True)
class Target:
    """One `--target`.

    Attributes:
        name: A model, a package ("watch/phone-int8") or a step's id.
        above: Whether the models it comes from are wanted for themselves too, measured and packaged.
        below: Whether everything made of it is wanted.
    """

    name: str
    above: bool = False
    below: bool = False


def parse_target(text: str) -> Target:
    """Reads "watch", "+watch", "watch+" or "+watch+". No name begins or ends with a plus sign."""
    name = text.strip()
    return Target(name.removeprefix("+").removesuffix("+").strip(), name.startswith("+"), name.endswith("+"))


def find_step(graph: BuildGraph, name: str, unbuilt: Collection[str] = ()) -> Step:
    """The step with this id; for a model's name the step that makes the model, for a package's the one that packs it.

    Args:
        graph: The family's steps.
        name: What a person typed.
        unbuilt: Models of the family that no step makes, for the message.

    Raises:
        UnknownNameError: There is none, or more than one.
    """
    wanted = " ".join(name.split())
    steps = graph.by_id
    packages = {f"{model}/{profile}": step for (model, profile), step in graph.packages.items()}
    exact = wanted if wanted in steps else graph.models.get(wanted) or packages.get(wanted)
    if exact is not None:
        return steps[exact]
    # What is left are corpora by their names, and an operation that happens once by its own.
    ending = [step.id for step in graph.steps if wanted in (step.op, step.name)]
    if len(ending) == 1:
        return steps[ending[0]]
    if ending:
        raise UnknownNameError(f"'{wanted}' could be any of {_listed(ending)}", hint="use a name from this family")
    raise _unknown(wanted, graph, packages, unbuilt)


def select(graph: BuildGraph, targets: Sequence[Target], unbuilt: Collection[str] = ()) -> frozenset[str]:
    """Ids of the steps that some targets ask for, with all that those need.

    Raises:
        UnknownNameError: A target's name stands for nothing.
    """
    import networkx

    edges = digraph(graph.steps)
    chosen: set[str] = set()
    for target in targets:
        made = find_step(graph, target.name, unbuilt).id
        wanted = {made} | (_products(graph, [target.name]) if target.name in graph.models else set())
        if target.below:
            wanted |= networkx.descendants(edges, made)
        if target.above:
            before = set().union(*(networkx.ancestors(edges, step) for step in wanted))
            wanted |= _products(graph, [model for model, step in graph.models.items() if step in before])
        chosen |= wanted
    return frozenset(chosen.union(*(networkx.ancestors(edges, step) for step in chosen)))


def restrict(graph: BuildGraph, chosen: Collection[str]) -> BuildGraph:
    """The graph of these steps alone. A model, measure or package whose step is left out is left out too."""
    return replace(
        graph,
        steps=tuple(step for step in graph.steps if step.id in chosen),
        origins={step: places for step, places in graph.origins.items() if step in chosen},
        models={model: step for model, step in graph.models.items() if step in chosen},
        metrics={model: step for model, step in graph.metrics.items() if step in chosen},
        packages={names: step for names, step in graph.packages.items() if step in chosen},
        others={model: [step for step in steps if step in chosen] for model, steps in graph.others.items()},
    )


def _products(graph: BuildGraph, models: Iterable[str]) -> set[str]:
    """The steps that measure and package models, and all others that these get."""
    wanted = set(models)
    measures = {step for model, step in graph.metrics.items() if model in wanted}
    others = {step for model, steps in graph.others.items() if model in wanted for step in steps}
    return measures | others | {step for (model, _), step in graph.packages.items() if model in wanted}


def _unknown(name: str, graph: BuildGraph, packages: Collection[str], unbuilt: Collection[str]) -> UnknownNameError:
    if name in unbuilt:
        return UnknownNameError(f"'{name}' is not built: no DesNet needs it", hint="'colbuild plan' lists them")
    if not name:
        return UnknownNameError("the name of a step or model is missing", hint=_known(graph))
    likely = suggest(name, [*graph.metrics, *packages, *(step.id for step in graph.steps)])
    return UnknownNameError(
        f"there is no step or model '{name}' in this family",
        hint=f"did you mean '{likely}'?" if likely else _known(graph),
    )


def _known(graph: BuildGraph) -> str:
    return f"models: {_listed(graph.metrics)}; 'colbuild graph' shows every step"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _MANY} more" if len(every) > _MANY else ""
    return ", ".join(f"'{name}'" for name in every[:_MANY]) + more
