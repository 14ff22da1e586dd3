"""Refuses lengths that exceed a model's positions, before a build; and fills in default contexts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from colbuild.arch import ARCHITECTURES, LEARNED_POSITIONS, positions_key, shared_window
from colbuild.spec import LoadedFamily, Problem
from colbuild.spec.model.bridge import SAME
from colbuild.spec.model.device import Device, Profile
from colbuild.spec.model.family import Bridge, Family
from colbuild.spec.model.recipe import Recipe
from colbuild.spec.text.places import Path

_GROUPED_WIDTH: Final = 16
"""onnxruntime's own attention takes heads of a multiple of it; see `colbuild/export/graph/grouped_attention.py`."""


@dataclass(frozen=True)
class _Owner:
    """A model whose positions others have too.

    Attributes:
        name: What messages call it.
        positions: How many it has; None if its configuration does not tell.
        window: How many tokens its attention reaches back, where that is a window.
        groups: Whether its heads are as wide as onnxruntime's own attention takes them.
    """

    name: str
    positions: int | None
    window: int | None = None
    groups: bool = True

    def most(self, profile: Device) -> int | None:
        """The longest context of a package."""
        known = [length for length in (self.positions, self._window_of(profile)) if length is not None]
        return min(known, default=None)

    def _window_of(self, profile: Device) -> int | None:
        """The window that a package's graph cannot hold: only onnxruntime's own attention has one."""
        return None if profile.operators == "contrib" and profile.static is None and self.groups else self.window

    def refuses(self, profile: Device, length: int) -> tuple[str, str]:
        """Returns the reason why a context is too long, and an alternative."""
        if self.positions is not None and length > self.positions:
            return self.told, ", or leave it out"
        return (
            f"the {self.name}'s attention has a window of {self.window} tokens, and only onnxruntime's attention supports "
            "window"
        ), ", or operators: contrib without static lengths"

    @property
    def told(self) -> str:
        return f"the {self.name} has {self.positions} positions, and so has every model made from it"


@dataclass(frozen=True)
class _Asked:
    """A length that a spec asks for.

    Attributes:
        path: Of the value.
        length: In tokens.
        most: The longest that there can be; None if that is not known.
        why: Why it is no longer.
        otherwise: What else there is to do.
    """

    path: Path
    length: int
    most: int | None
    why: str
    otherwise: str = ""


def position_problems(loaded: LoadedFamily, config: Mapping[str, Any]) -> list[Problem]:
    """Returns a problem for each length beyond the positions: of a training, a package, or generated text.

    Args:
        loaded: The family.
        config: The AnsNet's config.json. One that does not tell its positions refuses nothing.
    """
    ansnet, head = _owners(loaded.family, config)
    lengths = (
        *_trained(loaded.family, ansnet, head),
        *_packaged(loaded.family, ansnet, head),
        *_written(loaded.family, ansnet),
    )
    return [
        Problem(
            loaded.places.nearest(asked.path),
            f"'{asked.path[-1]}' is {asked.length} tokens: {asked.why}",
            f"at most {asked.path[-1]}: {asked.most}{asked.otherwise}",
        )
        for asked in lengths
        if asked.most is not None and asked.length > asked.most
    ]


def with_contexts(family: Family, config: Mapping[str, Any]) -> Family:
    """The family with the context of each profile that gives none: the usual one, or as many positions as there are.

    Args:
        family: The resolved spec.
        config: The AnsNet's config.json.
    """
    ansnet, head = _owners(family, config)

    def filled(profiles: tuple[Profile, ...], owner: _Owner) -> tuple[Profile, ...]:
        return tuple(
            profile
            if "context" in profile.model_fields_set or (most := owner.most(profile)) is None
            else profile.model_copy(update={"context": min(profile.context, most)})
            for profile in profiles
        )

    own = family.ansnet.model_copy(update={"exports": filled(family.ansnet.exports, ansnet)})
    desnets = tuple(desnet.model_copy(update={"exports": filled(desnet.exports, head)}) for desnet in family.desnets)
    return family.model_copy(update={"ansnet": own, "desnets": desnets})


def _owners(family: Family, config: Mapping[str, Any]) -> tuple[_Owner, _Owner]:
    """The AnsNet, and the head of the chain: the AnsNet again, or the bridge with what of it is its own."""
    found, kind = config.get(positions_key(config)), config.get("model_type")
    window = shared_window(config)
    groups = (_head_width(config) or _GROUPED_WIDTH) % _GROUPED_WIDTH == 0
    ansnet = _Owner("AnsNet", found if isinstance(found, int) else None, window, groups)
    if family.bridge is None:
        return ansnet, ansnet
    own = _own_positions(family.bridge, kind)
    head = ansnet if own is None else replace(ansnet, name="bridge", positions=own)
    return ansnet, head if family.bridge.architecture in (None, kind) else replace(head, window=None)


def _head_width(config: Mapping[str, Any]) -> int | None:
    width, hidden, heads = (config.get(key) for key in ("head_dim", "hidden_size", "num_attention_heads"))
    if isinstance(width, int):
        return width
    return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads else None


def _own_positions(bridge: Bridge, ansnet: object) -> int | None:
    """How many positions a bridge has, if that is not the AnsNet's number."""
    other = bridge.architecture not in (None, ansnet)
    if not other and bridge.tokenizer == SAME:
        return None  # it is not built
    learned = other and bool(ARCHITECTURES[str(bridge.architecture)].fixed)
    return bridge.positions or (LEARNED_POSITIONS if learned else None)


def _trained(family: Family, ansnet: _Owner, head: _Owner) -> Iterator[_Asked]:
    """The sequences of every recipe."""
    if family.bridge is not None:
        path: Path = ("bridge", "recipe", "sequence")
        # The AnsNet reads the same tokens, unless the vocabulary is another: then a text has more of them or fewer.
        for owner in (head, *((ansnet,) if family.bridge.tokenizer == SAME else ())):
            yield _Asked(path, family.bridge.recipe.sequence, owner.positions, owner.told)
    for path, recipe in _recipes(family):
        yield _Asked((*path, "sequence"), recipe.sequence, head.positions, head.told)


def _recipes(family: Family) -> Iterator[tuple[Path, Recipe]]:
    for index, anchor in enumerate(family.anchors):
        yield ("anchors", index, "recipe"), anchor.recipe
    if family.automatic is not None:
        yield ("automatic", "recipe"), family.automatic.recipe
    for index, desnet in enumerate(family.desnets):
        if desnet.recover is not None:
            yield ("desnets", index, "recover"), desnet.recover


def _packaged(family: Family, ansnet: _Owner, head: _Owner) -> Iterator[_Asked]:
    """What every profile asks for, the AnsNet's own ones too."""
    for path, profile, owner in _profiles(family, ansnet, head):
        if "context" in profile.model_fields_set:
            why, otherwise = owner.refuses(profile, profile.context)
            yield _Asked((*path, "context"), profile.context, owner.most(profile), why, otherwise)
        if profile.static is not None:
            yield _Asked((*path, "static", "sequence"), profile.static.sequence, owner.positions, owner.told)
        if profile.recover is not None:
            yield _Asked((*path, "recover", "sequence"), profile.recover.sequence, owner.positions, owner.told)


def _profiles(family: Family, ansnet: _Owner, head: _Owner) -> Iterator[tuple[Path, Profile, _Owner]]:
    for place, profile in enumerate(family.ansnet.exports):
        yield ("ansnet", "exports", place), profile, ansnet
    for index, desnet in enumerate(family.desnets):
        for place, profile in enumerate(desnet.exports):
            yield ("desnets", index, "exports", place), profile, head


def _written(family: Family, ansnet: _Owner) -> Iterator[_Asked]:
    """The texts that the AnsNet writes; by default they are no longer than it can read."""
    for part, data in (("train", family.data.train), ("eval", family.data.eval)):
        if data.generate is not None and "length" in data.generate.model_fields_set:
            path = ("data", part, "generate", "length")
            yield _Asked(path, data.generate.length, ansnet.positions, ansnet.told)
