"""What lands in `out/<family>/`: every model as a folder that transformers loads, every package, as soon as it is built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from colbuild.export.manifest import MANIFEST
from colbuild.plan.graph import BuildGraph
from colbuild.plan.step import Step
from colbuild.run.events import Listener, Notice, Packaged
from colbuild.store import ActionRecord, Store

CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Outputs:
    """Where a family's results go.

    Attributes:
        places: Step id -> folders that its result is put at.
        packages: Folder of a package -> names of its model and its profile.
    """

    places: Mapping[str, tuple[Path, ...]]
    packages: Mapping[Path, tuple[str, str]]


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
    return Outputs(places, packages)


def package_folder(folder: Path, model: str, profile: str) -> Path:
    """Where a package lies below a family's folder."""
    return folder / model / profile


def place_outputs(outputs: Outputs, store: Store, step: Step, record: ActionRecord, listener: Listener) -> None:
    """Puts a step's result at its places, if it has any.

    Raises:
        BuildError: The disk refuses.
    """
    for target in outputs.places.get(step.id, ()):
        placement = store.place(record.output, target)
        if placement.kept is not None:
            listener(Notice(f"{target} held files that colbuild did not put there; they are now in {placement.kept}"))
        if placement.changed and target in outputs.packages:
            listener(Packaged(*outputs.packages[target], str(target), record.size, _broken(target)))


def _broken(package: Path) -> tuple[str, ...]:
    """The limits that a package says it does not keep."""
    path = package / MANIFEST
    return tuple(json.loads(path.read_text(encoding="utf-8"))["broken"]) if path.is_file() else ()
