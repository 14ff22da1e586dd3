"""Checks before a build that the token in `begin` is one of the AnsNet's."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from colbuild.arch.files.model_files import TOKENIZER
from colbuild.errors import BuildError
from colbuild.fetch.contents import Sources
from colbuild.plan.changes.states import State, StepPlan
from colbuild.spec import LoadedFamily, Problem, spec_error


def check_beginning(loaded: LoadedFamily, steps: Iterable[StepPlan], sources: Sources) -> None:
    """Reads the AnsNet's tokenizer where the spec says `begin`, the AnsNet is on this machine, and is still to be read.

    Raises:
        SpecError: The tokenizer has no such token.
    """
    name = loaded.family.data.begin
    new = (plan for plan in steps if plan.state in (State.NEW, State.CHANGED))
    step = next((plan.step for plan in new if "begin" in plan.step.params and "raw" in plan.step.sources), None)
    if name is None or step is None:
        return
    from colbuild.arch.files.tokenizer_file import first_token, load_tokenizer
    from colbuild.arch.files.tokenizer_trial import try_tokenizer
    from colbuild.fetch.fetching import path_here

    raw = path_here(step.sources["raw"], root=sources.root, downloads=sources.downloads)
    if raw is None or not (raw / TOKENIZER).is_file():
        return
    with suppress(BuildError):
        try_tokenizer(raw / TOKENIZER)
        tokenizer = load_tokenizer(raw / TOKENIZER)
        try:
            first_token(tokenizer, name)
        except BuildError as error:
            place = loaded.places.nearest(("data", "begin"))
            raise spec_error([Problem(place, error.message, error.hint)]) from None
