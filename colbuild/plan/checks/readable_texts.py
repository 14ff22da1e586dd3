"""Checks before a build that texts on this machine can be read with the spec's keys."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from colbuild.errors import SourceError
from colbuild.fetch.contents import Sources
from colbuild.plan.changes.states import State, StepPlan

_TO_DO = (State.NEW, State.CHANGED)


def check_texts(steps: Iterable[StepPlan], sources: Sources) -> None:
    """Reads the first record of every text on this machine that is still to be packed.

    Raises:
        SourceError: With every text that cannot be read, each with the place in the spec that the mistake is about.
    """
    mistakes: dict[str, SourceError] = {}
    for step in (plan.step for plan in steps if plan.state in _TO_DO and "format" in plan.step.params):
        for uri in step.sources.values():
            try:
                _check_text(uri, step.params["format"], step.params["text"], step.params.get("files", ()), sources)
            except SourceError as error:
                mistakes.setdefault(error.message, error)
    found = list(mistakes.values())
    if len(found) == 1:
        raise found[0]
    if found:
        told = [error.message + (f"\n  = {error.hint}" if error.hint else "") for error in found]
        raise SourceError(f"{len(found)} texts cannot be read\n\n" + "\n\n".join(told), placed=True)


def _check_text(uri: str, form: str, field: str, globs: Iterable[str], sources: Sources) -> None:
    from colbuild.fetch.fetching import path_here

    raw = path_here(uri, root=sources.root, downloads=sources.downloads)
    if raw is None:
        return
    # The readers are imported only when there is a text to read: a plan of a finished family needs none.
    from colbuild.fetch.texts.peek import peek

    # What the disk refuses now it may give later; the step tells it then.
    with suppress(OSError), sources.reading(uri):
        peek(raw, form, field, tuple(globs))
