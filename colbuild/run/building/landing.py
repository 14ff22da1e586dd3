"""Places outputs in `out/<family>/`: every model as a folder for transformers, and every package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from colbuild.events import Listener, Notice, Packaged
from colbuild.hashing import TreeEntry
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.parts import CARRIED, homes_of, part_of
from colbuild.plan.drawing.step import Step
from colbuild.plan.steps.export import MANIFEST
from colbuild.store import ActionRecord, Store
from colbuild.store.assembling import Choose, all_files
from colbuild.store.durable_files import read_json

CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Outputs:
    """The places of a family's results.

    Attributes:
        places: Step id -> folders that its result is put at.
        packages: Folder of a package -> names of its model and its profile.
        homes: Step that makes a model -> the step whose tokenizer and texts lie beside it there.
    """

    places: Mapping[str, tuple[Path, ...]]
    packages: Mapping[Path, tuple[str, str]]
    homes: Mapping[str, str]


def outputs_of(graph: BuildGraph, out: Path, family: str) -> Outputs:
    """The places of every model and package of a graph."""
    folder = out / family
    places: dict[str, tuple[Path, ...]] = {}
    for model, step in graph.models.items():
        if model in graph.metrics:
            places[step] = (*places.get(step, ()), folder / model / CHECKPOINT)
    packages = {}
    for (model, profile), step in graph.packages.items():
        place = package_folder(folder, model, profile)
        places[step] = (*places.get(step, ()), place)
        packages[place] = (model, profile)
    homes = homes_of(graph.steps)
    return Outputs(places, packages, {step: homes[step] for step in graph.models.values()})


def package_folder(folder: Path, model: str, profile: str) -> Path:
    """Returns the path of a package below a family's folder."""
    return folder / model / profile


def place_outputs(
    outputs: Outputs,
    store: Store,
    step: Step,
    record: ActionRecord,
    results: Mapping[str, ActionRecord],
    listener: Listener,
) -> None:
    """Puts a step's result at its places, if it has any; a model with the tokenizer and the texts of its home.

    Args:
        outputs: The places.
        store: Where the results are.
        step: The step.
        record: Of its result.
        results: Step id -> record, of all steps before it.
        listener: Told of packages, and of a user's files that were moved aside.

    Raises:
        BuildError: The disk refuses.
    """
    home = outputs.homes.get(step.id, step.id)
    chosen: dict[str, Choose] = {record.output: all_files}
    if home != step.id:
        # A result of an older version has its home's files, too: those of then.
        chosen = {record.output: partial(_of_parts, False), results[home].output: partial(_of_parts, True)}
    for target in outputs.places.get(step.id, ()):
        placement = store.assemble(chosen, target)
        if placement.kept is not None:
            listener(Notice(f"{target} held files that colbuild did not write; they are now in {placement.kept}"))
        if placement.changed and target in outputs.packages:
            listener(Packaged(*outputs.packages[target], str(target), record.size, _broken(target)))


def _of_parts(carried: bool, entries: Sequence[TreeEntry]) -> Sequence[TreeEntry]:
    """The files that a model has from its home, or all others."""
    return [entry for entry in entries if (part_of(entry.path) in CARRIED) == carried]


def _broken(package: Path) -> tuple[str, ...]:
    """The limits that a package says it does not keep."""
    path = package / MANIFEST
    told = read_json(path)
    broken = told.get("broken") if isinstance(told, dict) else None
    return tuple(map(str, broken)) if isinstance(broken, list) else ()
