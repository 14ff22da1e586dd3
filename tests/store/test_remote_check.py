"""What a remote says is refused where it cannot be so, and no path of its leads out of the draft."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbuild.hashing import tree_digest
from colbuild.progress import silent
from colbuild.store import open_store
from colbuild.store.remote.remote_check import LARGEST_TREE, checked_record, checked_tree, is_confined
from colbuild.store.remote.remote_store import RejectedError, action_path, fetch, open_remote
from tests.store.processes import RECORD
from tests.store.remotes import forge, key_named, memory_remote, row, spoil

GOOD = replace(RECORD, key=key_named("good"), output="a" * 64, size=1)

HOSTILE = [
    "/etc/passwd", "//x", "..", "../x", "a/../../x", "a/..", ".", "./x", "a/./b", "", "a//b", "a/", "/",
    "..\\x", "a\\..\\x", "\\\\server\\x", "C:\\x", "C:x", "a\0b", "a\nb", "\x1b[2J", "a\ud800", "\u202egnp",
    "x" * 256, "ä" * 128, "/".join("a" * 40), "/".join(["x" * 200] * 6),
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
def test_hostile_path_is_rejected_and_nothing_is_written(path, tmp_path):
    assert not is_confined(path)
    store = open_store(tmp_path / "deep" / "store")
    store.prepare()
    before = files_below(tmp_path)
    remote = open_remote(memory_remote())
    with pytest.raises(RejectedError, match=r"a forbidden path|it is not JSON"):
        fetch(remote, store, forge(remote, [row("model"), row(path)]), silent)
    assert files_below(tmp_path) == before


def files_below(folder):
    """Every path below a folder, the locks of the store aside."""
    return sorted(path for path in folder.rglob("*") if path.suffix != ".lock")


@given(st.text(st.sampled_from("./\\ab:~\0"), max_size=12))
def test_confined_path_stays_inside(path):
    if is_confined(path):
        place = Path("/draft/files", path)
        assert ".." not in place.parts
        assert place.is_relative_to("/draft/files")
        assert place != Path("/draft/files")


TREES = {
    "twice": [row("a"), row("a", b"y")],
    "file and folder": [row("a"), row("a/b")],
    "deep file and folder": [row("a/b"), row("a/b/c/d")],
}


@pytest.mark.parametrize("name", TREES)
def test_tree_that_names_one_place_twice_is_rejected(name):
    with pytest.raises(RejectedError, match="one path twice"):
        checked(TREES[name])


@pytest.mark.parametrize("size", [-1, True, 1.0, "1", None, LARGEST_TREE + 1, 10**30])
def test_absurd_size_is_rejected(size):
    with pytest.raises(RejectedError, match="an impossible size"):
        checked([{**row("a"), "size": size}])


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"[1]", b'[["a", 1, "b"]]', b"null", b"\xff", b"[" * 100_000, b'[{"path": "a", "size": 1}]'],
    ids=lambda content: ascii(content[:20]),
)
def test_list_of_files_that_is_none_is_rejected(content):
    with pytest.raises(RejectedError, match=r"not|invalid"):
        checked_tree(content, GOOD)


def test_list_of_another_result_is_rejected():
    with pytest.raises(RejectedError, match="belongs to another result"):
        checked_tree(json.dumps([row("a")]).encode(), GOOD)


def test_sizes_have_to_be_the_record_s():
    rows = [row("a")]
    digest = tree_digest(checked(rows).entries)
    with pytest.raises(RejectedError, match="its record says 7"):
        checked_tree(json.dumps(rows).encode(), replace(GOOD, output=digest, size=7))


BAD_FIELDS = {
    "another key": {"key": key_named("another")},
    "not a digest": {"output": "../../x"},
    "upper case": {"output": "A" * 64},
    "size": {"size": -1},
    "huge": {"size": 10**20},
    "nan": {"seconds": float("nan")},
    "infinite": {"built_at": float("inf")},
    "before 1970": {"built_at": -1.0},
    "escape": {"step": "distill \x1b[2J"},
    "no step": {"step": ""},
    "long": {"op": "x" * 1000},
    "role": {"inputs": {"a\nb": "c" * 64}},
    "input": {"inputs": {"corpus": "\x07"}},
    "kind": {"params": 3},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_record_with_a_field_that_cannot_be_is_rejected(name):
    assert checked_record(json.dumps(asdict(GOOD)).encode(), GOOD.key).output == GOOD.output
    with pytest.raises(RejectedError):
        checked_record(json.dumps({**asdict(GOOD), **BAD_FIELDS[name]}).encode(), GOOD.key)


@pytest.mark.parametrize("depth", [64, 200, 900, 5000])
@pytest.mark.parametrize("field", ["ledger", "params", "step"])
def test_record_that_is_nested_deep_is_rejected(depth, field, tmp_path):
    """Its ledger is in no key; copying it would need more stack than parsing."""
    text = json.dumps({**asdict(GOOD), field: "DEEP"}).replace('"DEEP"', '{"a": ' * depth + "1" + "}" * depth)
    store, remote = open_store(tmp_path), open_remote(memory_remote())
    store.prepare()
    spoil(remote, action_path(GOOD.key), text.encode())
    with pytest.raises(RejectedError, match=r"nested deeper than 64|not JSON"):
        fetch(remote, store, GOOD.key, silent)


@given(st.binary(max_size=200))
def test_noise_is_no_record(content):
    with pytest.raises(RejectedError):
        checked_record(content, GOOD.key)


def checked(rows):
    """The tree of a record that agrees with these rows."""
    from colbuild.hashing import TreeEntry

    entries = [TreeEntry(one["path"], one["size"], one["sha256"]) for one in rows]
    size = sum(one["size"] for one in rows if isinstance(one["size"], int))
    try:
        digest = tree_digest(entries)
    except TypeError:
        digest = "0" * 64
    return checked_tree(json.dumps(rows).encode(), replace(GOOD, output=digest, size=size))
