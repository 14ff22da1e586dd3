"""Two trees differ where the differ says, and nowhere else."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbuild.plan.changes.differ import Change, Item, differences

KEYS = st.sampled_from(["a", "b", "name"])
LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "name"])


def branches(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mappings, lists, tuples, and lists of named things."""
    items = st.tuples(st.sampled_from("xyz"), st.dictionaries(st.sampled_from("ab"), inner, max_size=2))
    named = st.lists(items.map(lambda item: {**item[1], "name": item[0]}), max_size=3)
    plain = st.lists(inner, max_size=3)
    return st.dictionaries(KEYS, inner, max_size=3) | plain | plain.map(tuple) | named


TREES = st.recursive(LEAVES, branches, max_leaves=12)


def plain(tree: Any) -> Any:
    """A tree as the differ sees it: lists for tuples, and no key without a value."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items() if value is not None}
    return [plain(item) for item in tree] if isinstance(tree, list | tuple) else tree


def applied(tree: Any, changes: tuple[Change, ...]) -> Any:
    """The tree that another becomes by its changes."""
    held = {"root": plain(deepcopy(tree))}
    late = []
    for change in changes:
        into: Any = held
        *path, last = ("root", *change.path)
        for key in path:
            into = found(into, key) if isinstance(key, Item) else into.setdefault(key, {})
        if change.reordered:
            late.append((into[last], change))
        elif not isinstance(last, Item):
            into[last] = plain(change.after)
        elif change.after is None:
            into.remove(found(into, last))
        elif change.before is None:
            late.append((into, change))
        else:
            into[into.index(found(into, last))] = plain(change.after)
    # Which items come first, and then where new ones stand among them, the first one first.
    for items, change in sorted(late, key=lambda one: not one[1].reordered):
        if change.reordered:
            items.sort(key=lambda item, order=change.after: order.index(item["name"]) if item["name"] in order else -1)
        else:
            items.insert(change.at[-1], plain(change.after))
    return plain(held["root"])


def found(items: list[Any], name: str) -> Any:
    return next(item for item in items if item["name"] == name)


@given(TREES, TREES)
def test_changes_are_none_exactly_between_equal_trees(before, after):
    assert (differences(before, after) == ()) == (plain(before) == plain(after))
    assert differences(before, deepcopy(before)) == ()


@given(TREES, TREES)
def test_the_changes_make_one_tree_of_the_other(before, after):
    assert applied(before, differences(before, after)) == plain(after)


@given(TREES, TREES)
def test_there_and_back_differ_in_the_same_places_by_the_same_values(before, after):
    def told(changes, back):
        return {(one.path, repr((one.before, one.after)[:: -1 if back else 1]), one.reordered) for one in changes}

    assert told(differences(before, after), back=False) == told(differences(after, before), back=True)


@given(TREES, TREES)
def test_a_change_lies_where_it_says(before, after):
    for change in differences(before, after):
        at = after
        for key in change.at:
            at = at.get(key) if isinstance(at, dict) else at[key]
        if change.after is not None and not change.reordered:
            assert at == change.after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": (1, (2, 3))}, {"a": [1, [2, 3]]}),
        ({"a": None}, {}),
        ([{"a": None, "b": 1}], ({"b": 1},)),
    ],
    ids=["a tuple in a tuple", "no value", "no value in a list"],
)
def test_what_json_cannot_tell_apart_is_equal(before, after):
    assert differences(before, after) == ()


def test_items_in_front_of_others_change_no_others():
    old = [{"name": "b", "size": 1}, {"name": "c"}]
    new = [{"name": "a"}, {"name": "b", "size": 2}]
    assert differences({"list": old}, {"list": new}) == (
        Change(("list", Item("a")), ("list", 0), None, {"name": "a"}),
        Change(("list", Item("b"), "size"), ("list", 1, "size"), 1, 2),
        Change(("list", Item("c")), ("list",), {"name": "c"}, None),
    )


def test_items_of_one_name_are_compared_as_a_whole():
    """The later one of the two would hide the other."""
    twice = [{"name": "a", "size": 1}, {"name": "a"}]
    assert differences(twice, twice[1:]) == (Change((), (), twice, twice[1:]),)
