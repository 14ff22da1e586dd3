"""A family that stands built in a real store, without building anything: each step's result is a small file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from colbuild.hashing import canonical_json
from colbuild.plan.changes.states import StepPlan, plan_steps
from colbuild.plan.drawing.build_graph import BuildGraph
from colbuild.plan.drawing.keys import action_key
from colbuild.plan.drawing.parts import Parts
from colbuild.plan.drawing.step import Step
from colbuild.store import ActionRecord, Store, open_store
from tests.plan.families import graph, load

SOURCES = {"./ansnet": "a" * 64, "./corpus.txt": "c" * 64}

Look = Callable[[str], str | None]


def nothing_known(_: str) -> None:
    """A look that would have to fetch every source."""


def publish(store: Store, content: bytes, *more: str) -> str:
    """Puts a tree into the store, of a file that belongs to a model's weights and others of the same content; its digest."""
    with store.draft() as draft:
        for name in ("result", *more):
            (draft / "files" / name).write_bytes(content)
        return store.publish(draft).digest


def finish(
    store: Store, family: str, step: Step, inputs: Mapping[str, str], content: bytes, *, built_at: float = 1.7e9
) -> ActionRecord:
    """Records a step as run."""
    output = publish(store, content, *(("tokenizer.json",) if step.op in ("source", "tokenizer") else ()))
    key = action_key(step.op, step.params, inputs)
    record = ActionRecord(key, step.id, step.op, step.params, inputs, output, len(content), 12.5, built_at)
    store.record(family, record)
    return record


def inputs_of(store: Store, step: Step, records: Mapping[str, ActionRecord]) -> dict[str, str]:
    """What a step's key says of its inputs, all of which are built."""
    found = Parts(store).inputs(step, lambda needed: records[needed].output)
    return {name: digest for name, digest in found.items() if digest is not None}


@dataclass(frozen=True)
class World:
    """A project and its store."""

    root: Path
    store: Store

    def graph(self, **parts: str) -> BuildGraph:
        """The steps of the project."""
        return graph(self.root / "project", **parts)

    def plan(self, look: Look = SOURCES.get, built: BuildGraph | None = None, **parts: str) -> dict[str, StepPlan]:
        """Step id -> its state, with sources as `look` finds them."""
        loaded = load(self.root / "project", **parts)
        steps = plan_steps(
            built or self.graph(**parts),
            family=loaded.family.name,
            store=self.store,
            places=loaded.places,
            source_digest=look,
        )
        return {plan.step.id: plan for plan in steps}

    def build(self, **parts: str) -> dict[str, ActionRecord]:
        """Brings every step into the store, as the executor does."""
        self.store.prepare()
        records: dict[str, ActionRecord] = {}
        for step in self.graph(**parts).steps:
            inputs = inputs_of(self.store, step, records)
            inputs |= {role: SOURCES[uri] for role, uri in step.sources.items()}
            hit = self.store.lookup(action_key(step.op, step.params, inputs))
            # A result that differs whenever parameters or inputs do.
            content = canonical_json([dict(step.params), inputs])
            records[step.id] = hit or finish(self.store, "fam", step, inputs, content)
            self.store.note_step("fam", records[step.id])
        return records


def world(root: Path) -> World:
    """A project that was never built."""
    return World(root, open_store(root / "store"))
