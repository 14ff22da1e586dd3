"""Compares public checkpoints with the anchors that start from them, before a build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from colbuild.arch import Structure, read_structure
from colbuild.arch.turning import why_not_turned
from colbuild.errors import BuildError, SourceUnavailableError
from colbuild.events import Listener, Notice
from colbuild.fetch.contents import Sources, is_fetched
from colbuild.plan.shapes.chain import Chain
from colbuild.spec import LoadedFamily, Problem, spec_error


def check_starts(loaded: LoadedFamily, chain: Chain, sources: Sources, listener: Listener) -> None:
    """Compares the checkpoints that anchors start from with the anchors, as far as they lie on this machine.

    Raises:
        SpecError: One shall be aligned in a way that models of its kind do not take.
        SourceError: One cannot be read, or is not of its anchor's kind and shape.
    """
    if problems := list(_turning_problems(loaded, chain)):
        raise spec_error(problems)
    members = {member.name: member for member in chain.anchors}
    for index, anchor in enumerate(loaded.family.anchors):
        if anchor.init is None or is_fetched(anchor.init.checkpoint):
            continue
        from colbuild.fetch.fetching import read_config

        uri = anchor.init.checkpoint
        # A checkpoint that only the lock knows is missed by the step that reads it, if that step has to run.
        with suppress(SourceUnavailableError):
            path = sources.fetch(uri, listener).path
            with sources.reading(uri, loaded.places.nearest(("anchors", index, "init", "checkpoint"))):
                found = read_structure(read_config(path, lambda text: listener(Notice(text))))
                _check_start(found, members[anchor.name].structure)


def _turning_problems(loaded: LoadedFamily, chain: Chain) -> Iterator[Problem]:
    """Anchors whose `init` asks for a turn of the residual stream that models of the family's kind do not take."""
    members = {member.name: member for member in chain.anchors}
    for index, anchor in enumerate(loaded.family.anchors):
        if anchor.init is None or anchor.init.align != "procrustes":
            continue
        reason = why_not_turned(members[anchor.name].structure)
        if reason is not None:
            yield Problem(
                loaded.places.nearest(("anchors", index, "init", "align")),
                f"'align' is procrustes, which rotates the residual stream: {reason}",
                "write align: permute, which works for every model",
            )


def _check_start(found: Structure, anchor: Structure) -> None:
    """Compares a checkpoint with the anchor that starts from it.

    Raises:
        BuildError: It has another architecture, vocabulary or shape, or other biases, or only one of both has a tied head.
    """
    if found.architecture != anchor.architecture:
        raise BuildError(
            f"the checkpoint is a {found.architecture.name}, and the family is a {anchor.architecture.name}",
            hint="choose a checkpoint of the family's architecture",
        )
    theirs = dict(anchor.flags)
    for flag, value in sorted(found.flags):
        if theirs[flag] != value:
            raise BuildError(
                f"the checkpoint has {flag}: {_show(value)}, and the family {flag}: {_show(theirs[flag])}",
                hint="choose a checkpoint with the same setting",
            )
    ours, wanted = found.shape, anchor.shape
    if ours.vocab != wanted.vocab:
        raise BuildError(
            f"the checkpoint has a vocabulary of {ours.vocab:,} tokens, and the family one of {wanted.vocab:,}",
            hint="choose a checkpoint with the family's tokenizer",
        )
    if ours != wanted:
        lengths = ("layers", "hidden", "ffn", "heads", "kv_heads")
        odd = [axis for axis in (*lengths, "head_dim") if getattr(ours, axis) != getattr(wanted, axis)]
        told = ", ".join(f"{axis} {getattr(ours, axis)}, not {getattr(wanted, axis)}" for axis in odd)
        written = ", ".join(f"{axis}: {getattr(ours, axis)}" for axis in lengths)
        raise BuildError(
            f"the checkpoint has another shape than the anchor: {told}", hint=f"write shape: {{{written}}}"
        )


def _show(value: bool) -> str:
    return str(value).lower()
