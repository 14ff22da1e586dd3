"""Records the results that a lock needs, during a long build and at its end, so that the collector keeps them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from colbuild.errors import BuildError
from colbuild.plan.drawing.step import Step
from colbuild.plan.family_plan import FamilyPlan
from colbuild.plan.lock.named_sources import source_uris
from colbuild.store import ActionRecord, Store
from colbuild.store.collecting.roots import note_root

_NOTE_EVERY: Final = 600.0
"""Seconds between two notes of what a running build needs; a result is leased for much longer."""


@dataclass(eq=False)
class KeptResults:
    """The results of one build so far.

    Attributes:
        plan: What is built.
        store: Where the results are noted.
        records: Step id -> record of its result.
    """

    plan: FamilyPlan
    store: Store
    records: dict[str, ActionRecord] = field(default_factory=dict)
    noted_at: float = field(default_factory=time.monotonic)

    def add(self, step: Step, record: ActionRecord) -> None:
        """Takes in the result of a step that finished."""
        self.records[step.id] = record
        if time.monotonic() - self.noted_at > _NOTE_EVERY:
            self.note()

    def note(self, *, whole: bool = False) -> None:
        """Notes what is there; `whole` says that the build is done, and what older ones needed can go."""
        self.noted_at = time.monotonic()
        graph = self.plan.selection.whole if self.plan.selection else self.plan.graph
        # A store that may only be read is its owner's to collect; what could not be noted is leased for a day.
        with suppress(BuildError):
            note_root(
                self.store,
                lock=self.plan.lock.path,
                spec=self.plan.loaded.path,
                family=self.plan.loaded.family.name,
                records=self.records,
                sources=source_uris(self.plan.loaded.family),
                steps=[step.id for step in graph.steps] if whole else None,
                project=self.plan.loaded.root,
            )
