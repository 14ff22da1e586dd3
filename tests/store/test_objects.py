"""A published tree is there as a whole or not at all, and what is damaged is never used again."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.errors import BuildError
from colbuild.hashing import TreeEntry, hash_file, scan_tree, tree_digest
from colbuild.store import objects, open_store
from tests.store.processes import RECORD, fill, let_go, other

FILES = {"model.safetensors": b"weights" * 100, "sub/config.json": b"{}", "empty": b""}


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def leftovers(store):
    """What should be gone after the work. The collector's lock stays in its place."""
    found = [*(store.root / "tmp").iterdir(), *(store.root / "locks").iterdir()]
    return [path for path in found if path.name != "gc.lock"]


def trees(store):
    return [path.name for path in (store.root / "objects").glob("*/*")]


def files(store, digest):
    root = store.files(digest)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def finished(store, contents=FILES):
    """A recorded action with this result."""
    record = replace(RECORD, output=fill(store, contents))
    store.record("fam", record)
    return record


# -- digests ----------------------------------------------------------------------------------------------------------


def test_tree_digest_is_frozen():
    """Where this fails, every published tree in the world is lost: change it only on purpose, with the tag."""
    entries = [TreeEntry("b/ü.txt", 2, "0" * 64), TreeEntry("a", 0, "1" * 64)]
    text = f'[["a",0,"{"1" * 64}"],["b/\\u00fc.txt",2,"{"0" * 64}"]]'
    assert tree_digest(entries) == hashlib.sha256(b"colbuild.tree.v1\0" + text.encode()).hexdigest()


@settings(max_examples=50)
@given(st.permutations([TreeEntry("a", 1, "0" * 64), TreeEntry("a/b", 1, "1" * 64), TreeEntry("B", 1, "2" * 64)]))
def test_order_of_files_does_not_matter(entries):
    assert tree_digest(entries) == tree_digest(sorted(entries))


def test_name_size_and_content_count_and_nothing_else(tmp_path, store):
    base = fill(store, FILES)
    assert fill(store, {**FILES, "sub/config.json": b"[]"}) != base
    assert fill(store, {**FILES, "sub/other.json": b"{}"}) != base
    assert fill(store, {name: content for name, content in FILES.items() if name != "empty"}) != base
    with store.draft() as draft:
        for name, content in FILES.items():
            path = draft / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o600)
            os.utime(path, (0, 0))
        (draft / "files/an empty folder").mkdir()
        assert store.publish(draft).digest == base


def test_file_larger_than_a_block_is_hashed_whole(tmp_path):
    content = os.urandom(3 * (1 << 20) + 17)
    (tmp_path / "large").write_bytes(content)
    assert hash_file(tmp_path / "large") == hashlib.sha256(content).hexdigest()
    assert scan_tree(tmp_path)[0] == TreeEntry("large", len(content), hashlib.sha256(content).hexdigest())


# -- publishing -------------------------------------------------------------------------------------------------------


def test_published_tree_holds_what_was_written_read_only(store):
    digest = fill(store, FILES)
    assert files(store, digest) == FILES
    assert objects.look(store.layout, digest, full=True).damage is None
    for path in (path for path in store.layout.object(digest).rglob("*") if path.is_file()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o222 == 0, path
    assert leftovers(store) == []


def test_tree_knows_its_files_and_size(store):
    store.prepare()
    with store.draft() as draft:
        (draft / "files/b").write_bytes(b"12345")
        (draft / "files/a").write_bytes(b"1")
        tree = store.publish(draft)
    assert ([entry.path for entry in tree.entries], tree.size) == (["a", "b"], 6)
    assert objects.read_tree(store.layout, tree.digest) == tree


def test_same_tree_is_kept_once(store):
    first = fill(store, FILES)
    inode = (store.files(first) / "empty").stat().st_ino
    assert fill(store, FILES) == first
    assert (store.files(first) / "empty").stat().st_ino == inode
    assert (trees(store), leftovers(store)) == ([first], [])


def test_failing_draft_leaves_nothing(store):
    store.prepare()
    with pytest.raises(ZeroDivisionError), store.draft() as draft:
        (draft / "files/half").write_bytes(b"half")
        raise ZeroDivisionError
    assert (trees(store), leftovers(store)) == ([], [])


def test_crash_before_the_rename_publishes_nothing(store, monkeypatch):
    store.prepare()
    monkeypatch.setattr(objects, "seal_tree", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fill(store, FILES)
    assert (trees(store), leftovers(store)) == ([], [])


def test_crash_between_publishing_and_recording_costs_the_run_but_leaves_no_wrong_result(store):
    fill(store, FILES)
    assert store.lookup(RECORD.key) is None
    assert store.lookup(finished(store).key) is not None
    assert len(trees(store)) == 1


def test_nothing_written_is_an_error(store):
    with pytest.raises(BuildError, match="the step wrote no files"):
        fill(store, {})
    assert trees(store) == []


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "dangling link", "pipe"])
def test_only_files_and_folders_can_be_published(tmp_path, store, kind):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    store.prepare()
    with pytest.raises(BuildError) as caught, store.draft() as draft:
        (draft / "files/fine").write_bytes(b"fine")
        path = draft / "files/sub/odd"
        path.parent.mkdir()
        if kind == "pipe":
            os.mkfifo(path)
        else:
            targets = {"link to a file": "outside/secret", "link to a folder": "outside", "dangling link": "nowhere"}
            path.symlink_to(tmp_path / targets[kind])
        store.publish(draft)
    expected = "a special file" if kind == "pipe" else "a symbolic link"
    assert f"sub/odd is {expected}; the store keeps only regular files and folders" in caught.value.message
    assert (trees(store), leftovers(store)) == ([], [])
    assert (tmp_path / "outside/secret").read_text() == "secret"


def test_processes_that_publish_the_same_trees_at_once_agree(store):
    store.prepare()
    rounds = "25"
    with other("publish", str(store.root), rounds) as first, other("publish", str(store.root), rounds) as second:
        let_go(first)
        let_go(second)
        assert (first.wait(timeout=60), second.wait(timeout=60)) == (0, 0)
    assert len(trees(store)) == int(rounds)
    for digest in trees(store):
        assert objects.look(store.layout, digest, full=True).damage is None
    assert leftovers(store) == []
    assert list((store.root / "quarantine").iterdir()) == []


# -- damage -----------------------------------------------------------------------------------------------------------


def break_file(store, digest, damage):
    """Damages a tree as somebody with too many rights could."""
    folder = store.files(digest)
    for path in (folder, folder / "sub", folder / "sub/config.json"):
        path.chmod(0o755)
    if damage == "missing":
        (folder / "sub/config.json").unlink()
    elif damage == "extra":
        (folder / "added").write_text("x")
    elif damage == "size":
        (folder / "sub/config.json").write_bytes(b"{ }")
    elif damage == "link":
        (folder / "sub/config.json").unlink()
        (folder / "sub/config.json").symlink_to("/dev/null")
    else:
        (store.layout.tree(digest)).unlink()


DAMAGES = {
    "missing": "sub/config.json is missing",
    "extra": "added does not belong to it",
    "size": "sub/config.json has 3 bytes instead of 2",
    "link": "is a symbolic link",
    "list": "its list of files is missing or damaged",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_result_is_not_found_is_set_aside_and_can_be_published_again(store, damage):
    record = finished(store)
    assert store.set_aside_damaged(record.key) is None
    break_file(store, record.output, damage)
    assert store.lookup(record.key) is None
    told = store.set_aside_damaged(record.key)
    [kept] = (store.root / "quarantine").iterdir()
    assert DAMAGES[damage] in told
    assert told.endswith(f"; quarantined as {kept}")
    assert trees(store) == []
    assert store.set_aside_damaged(record.key) is None
    assert fill(store, FILES) == record.output
    assert store.lookup(record.key) == record


@pytest.mark.parametrize("damage", DAMAGES)
def test_publishing_over_a_damaged_tree_replaces_it(store, damage):
    digest = fill(store, FILES)
    break_file(store, digest, damage)
    assert fill(store, FILES) == digest
    assert files(store, digest) == FILES
    assert len(list((store.root / "quarantine").iterdir())) == 1


@pytest.mark.parametrize("times", ["new times", "old times"])
def test_changed_content_of_the_same_size_is_found_by_a_lookup_unless_the_times_were_put_back(store, times):
    record = finished(store)
    path = store.files(record.output) / "model.safetensors"
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"WEIGHTS" * 100)
    if times == "old times":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    # A lookup reads no file with the stamp that was noted, since a plan has to be fast.
    assert store.lookup(record.key) == (record if times == "old times" else None)
    found = objects.look(store.layout, record.output, full=True).damage
    assert found == "the content of model.safetensors has changed"


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count what a process writes")
def test_publishing_writes_no_content_again(store):
    def written():
        return int(Path("/proc/self/io").read_text().split("wchar:")[1].split()[0])

    store.prepare()
    with store.draft() as draft:
        (draft / "files/weights").write_bytes(os.urandom(4_000_000))
        before = written()
        store.publish(draft)
        assert written() - before < 10_000


def test_what_is_published_is_on_the_disk_before_its_name_is(store, monkeypatch):
    """Files and folders are flushed before the rename, and the folder that got the name after it; stamps can be noted anew."""
    calls = []
    sync, rename = os.fsync, Path.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(str(Path(f"/proc/self/fd/{fd}").readlink())), sync(fd))[1]
    )
    monkeypatch.setattr(Path, "rename", lambda path, to: (calls.append("rename"), rename(path, to))[1])
    digest = fill(store, FILES)
    place = store.layout.object(digest)
    cut = calls.index("rename")
    flushed = {name.split("/tmp/")[-1].partition("/")[2] for name in calls[:cut]}
    assert {
        "files/model.safetensors",
        "files/sub/config.json",
        "files/sub",
        "files",
        "tree.json",
    } <= flushed
    assert calls[cut + 1 : cut + 3] == [str(place.parent), str(place.parent.parent)]
