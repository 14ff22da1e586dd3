"""Lists the differences of two trees of values: parameters, specs, locks and saved plans.

::

    {anchors: [{name: a100, tokens: 1}]}  ──┐
                                            ├──> (anchors, a100, tokens)  1 -> 2
    {anchors: [{name: a100, tokens: 2}]}  ──┘

Trees come from JSON on one side and from Python on the other: a tuple equals a list. A key without a value equals an absent
one, so that a new field of a later colbuild without a value changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class Item(str):
    """The name of an item, as a step of a path into a list."""

    __slots__ = ()


@dataclass(frozen=True)
class Change:
    """A value that differs.

    Attributes:
        path: The keys that lead to it; an `Item` where that is an item of a list.
        at: The same in the tree of now, with an item's index for its name. For an item that is gone: its list.
        before: What it was; None if there was nothing.
        after: What it is; None if there is nothing now.
        reordered: Whether it is a list whose items, of those that it had and has, come in another order; `before` and `after`
            are then their names.
    """

    path: tuple[str, ...]
    at: tuple[str | int, ...]
    before: Any
    after: Any
    reordered: bool = False


def differences(before: Any, after: Any) -> tuple[Change, ...]:
    """Every value that differs between two trees.

    Mappings are compared key by key, in sorted order. Lists whose items have names are compared by these: an item in front of
    others does not change the others. Other lists are compared as a whole.
    """
    return tuple(_walk((), (), before, after))


def _walk(path: tuple[str, ...], at: tuple[str | int, ...], before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            yield from _walk((*path, key), (*at, key), before.get(key), after.get(key))
    elif _are_named(before) and _are_named(after):
        yield from _walk_items(path, at, before, after)
    elif _plain(before) != _plain(after):
        yield Change(path, at, before, after)


def _walk_items(
    path: tuple[str, ...], at: tuple[str | int, ...], before: Sequence[Any], after: Sequence[Any]
) -> Iterator[Change]:
    old = {item["name"]: item for item in before}
    new = {item["name"]: item for item in after}
    for index, (name, item) in enumerate(new.items()):
        yield from _walk((*path, Item(name)), (*at, index), old.get(name), item)
    for name in old:
        if name not in new:
            yield Change((*path, Item(name)), at, old[name], None)
    was, now = (tuple(name for name in names if name in old and name in new) for names in (old, new))
    if was != now:
        yield Change(path, at, was, now, reordered=True)


def _are_named(value: Any) -> bool:
    """Returns whether a value is a list of items that their names tell apart."""
    if not isinstance(value, list | tuple):
        return False
    names = [item.get("name") if isinstance(item, Mapping) else None for item in value]
    return all(isinstance(name, str) for name in names) and len({*names}) == len(names)


def _plain(value: Any) -> Any:
    """A value as JSON has it, without keys that have no value."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
