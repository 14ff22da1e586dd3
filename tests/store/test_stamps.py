"""Stamps spare a build the reading of what nobody touched, and are never the reason to call a file damaged."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest

from colbuild.errors import BuildError
from colbuild.run.sharing.verifying import verify_store
from colbuild.store import DamagedTreeError, checking, links, objects, open_store
from colbuild.store.locks import remove
from tests.store.little import damage
from tests.store.processes import RECORD, fill

FILES = {"weights": b"w" * 5000, "config.json": b"{}"}


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@pytest.fixture
def read(monkeypatch):
    """The names of the files of objects that were read."""
    names = []
    hash_file = objects.hash_file
    monkeypatch.setattr(objects, "hash_file", lambda path: (names.append(path.name), hash_file(path))[1])
    return names


def finished(store):
    record = replace(RECORD, output=fill(store, FILES))
    store.record("fam", record)
    return record


def again(store):
    """The store as another process sees it."""
    return open_store(store.root)


def disturb(store, digest, how):
    folder = store.files(digest)
    if how == "moved":
        shutil.copytree(store.root, store.root.with_name("copy"))
        remove(store.root)
        store.root.with_name("copy").rename(store.root)
    elif how == "touched":
        for name in FILES:
            os.utime(folder / name)
    elif how == "from an older version":
        store.layout.stamps(digest).unlink()
    else:
        damage(store.layout.stamps(digest), "flip")


DISTURBANCES = ["moved", "touched", "from an older version", "stamps damaged"]


def test_what_nobody_touched_is_not_read(store, read):
    record = finished(store)
    assert again(store).lookup(record.key) == record
    assert read == []


@pytest.mark.parametrize("how", DISTURBANCES)
def test_disturbed_store_is_read_once_and_used(store, read, how):
    record = finished(store)
    disturb(store, record.output, how)
    building = again(store)
    assert building.lookup(record.key) == building.lookup(record.key) == record
    assert set(read) == set(FILES) if how != "stamps damaged" else read
    assert len(read) <= len(FILES), "what this process has read it does not read again"
    building.note_step("fam", record)
    read.clear()
    assert again(store).lookup(record.key) == record
    assert read == [], "the build noted the new stamps"
    assert store.layout.stamps(record.output).stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("how", DISTURBANCES)
def test_looking_notes_nothing(store, read, how):
    record = finished(store)
    disturb(store, record.output, how)
    before = sorted((path, path.stat().st_mtime_ns) for path in store.root.rglob("*"))
    assert again(store).lookup(record.key) == record
    assert sorted((path, path.stat().st_mtime_ns) for path in store.root.rglob("*")) == before


def test_link_to_a_stored_file_is_no_reason_to_read_it(store, read, tmp_path):
    record = finished(store)
    os.link(store.files(record.output) / "weights", tmp_path / "link")
    (store.files(record.output) / "weights").chmod(0o444)
    assert again(store).lookup(record.key) == record
    (tmp_path / "link").unlink()
    assert again(store).lookup(record.key) == record
    assert read == []


def test_stamps_are_not_noted_for_a_file_that_changed_since_it_was_read(store):
    record = finished(store)
    disturb(store, record.output, "touched")
    building = again(store)
    assert building.lookup(record.key) == record
    damage(store.files(record.output) / "weights", "flip")
    building.note_step("fam", record)
    assert again(store).lookup(record.key) is None


# -- reading as a whole -----------------------------------------------------------------------------------------------


def test_verifying_finds_what_stamps_do_not_and_leaves_it(store):
    record = finished(store)
    assert store.verify(record.output) is None
    damage(store.files(record.output) / "weights", "silent flip")
    assert again(store).lookup(record.key) == record
    told = "the content of weights has changed"
    assert store.verify(record.output) == told, "even where this process has read it before"
    assert store.files(record.output).exists()
    other, seen = fill(store, {"a": b"a"}), []
    size = sum(len(content) for content in FILES.values())
    checked = verify_store(again(store), report=seen.append)
    assert (checked.objects, checked.size) == (2, size + 1)
    [damaged] = checked.damaged
    assert damaged.name == record.output
    assert damaged.problem.startswith(told)
    assert store.files(other).exists()
    assert [(seen[0].done, seen[-1].done, seen[-1].total)] == [(0, size + 1, size + 1)]


def test_checked_content_is_set_aside_and_named(store):
    record = finished(store)
    damage(store.files(record.output) / "weights", "silent flip")
    assert again(store).check(record.output) is None
    told = again(store).check_content(record.output)
    [place] = (store.root / "quarantine").iterdir()
    assert told == f"the content of weights has changed; quarantined as {place}"
    assert store.check_content(record.output) == store.check(record.output) == "it is not in the store"


def test_content_is_read_once_in_a_build(store, read, tmp_path):
    record = finished(store)
    assert store.check_content(record.output) is None
    store.place(record.output, tmp_path / "out")
    assert read == [], "publishing has just read it"
    another = again(store)
    another.place(record.output, tmp_path / "more")
    assert another.check_content(record.output) is None
    assert sorted(read) == sorted(FILES)
    read.clear()
    another.prepare()
    assert another.check_content(record.output) is None
    assert sorted(read) == sorted(FILES), "the next build of the same process reads it once more"


def test_what_a_process_of_this_build_published_is_trusted_until_it_is_touched(store, read):
    record = finished(store)
    parent = again(store)
    parent.trust(record.output)
    assert parent.check_content(record.output) is None
    assert read == []
    damage(store.files(record.output) / "weights", "flip")
    assert "the content of weights has changed" in parent.check_content(record.output)


def test_publishing_the_same_again_heals_damage_that_left_no_trace(store):
    record = finished(store)
    damage(store.files(record.output) / "weights", "silent flip")
    assert fill(again(store), FILES) == record.output
    assert again(store).verify(record.output) is None
    assert len(list((store.root / "quarantine").iterdir())) == 1


def test_damaged_tree_is_set_aside_and_not_placed(store, tmp_path):
    record = finished(store)
    damage(store.files(record.output) / "weights", "silent flip")
    with pytest.raises(DamagedTreeError) as caught:
        again(store).place(record.output, tmp_path / "out")
    assert caught.value.digest == record.output
    assert "the content of weights has changed; quarantined as" in caught.value.message
    assert not (tmp_path / "out").exists()
    assert isinstance(caught.value, BuildError)


def test_copy_that_another_build_has_just_made_is_not_set_aside(store, monkeypatch):
    """Two builds find the same damage; the second waits for the lock, and looks again before it moves anything."""
    record = finished(store)
    damage(store.files(record.output) / "weights", "flip")
    held = checking.held

    @contextmanager
    def late(layout, digest):
        monkeypatch.setattr(checking, "held", held)
        first = again(store)
        assert first.set_aside_damaged(record.key) is not None
        assert fill(first, FILES) == record.output
        with held(layout, digest):
            yield

    second = again(store)
    monkeypatch.setattr(checking, "held", late)
    assert second.set_aside_damaged(record.key) is None
    assert second.lookup(record.key) == record
    assert len(list((store.root / "quarantine").iterdir())) == 1


# -- values and records -----------------------------------------------------------------------------------------------


def test_no_flipped_bit_of_a_record_or_a_value_goes_unseen(store):
    record = finished(store)
    store.remember("config", "d" * 64, {"layers": 30})
    for path, ask, right in (
        (store.layout.action(record.key), lambda: store.lookup(record.key), record),
        (store.layout.step("fam", record.step), lambda: store.last("fam", record.step), record),
        (store.layout.memo("config", "d" * 64), lambda: store.remembered("config", "d" * 64), {"layers": 30}),
    ):
        content = path.read_bytes()
        for number in range(len(content)):
            for bit in range(8):
                path.write_bytes(content[:number] + bytes([content[number] ^ 1 << bit]) + content[number + 1 :])
                assert ask() in (None, right), (path, number, bit)
        path.write_bytes(content)
        assert ask() == right


def test_record_of_an_older_version_is_read(store):
    record = finished(store)
    path = store.layout.action(record.key)
    lines = [line for line in path.read_text().splitlines() if '"check"' not in line]
    path.write_text("\n".join(lines))
    assert store.lookup(record.key) == record


def test_clone_is_used_where_the_file_system_has_such(store, tmp_path, monkeypatch):
    monkeypatch.setattr(links, "SHARED_BYTES", 1000)

    def share(target, request, source):
        assert request == 0x40049409
        os.write(target, os.pread(source, 1 << 20, 0))

    monkeypatch.setattr(links.fcntl, "ioctl", share)
    digest = fill(store, FILES)
    store.place(digest, tmp_path / "out")
    assert (tmp_path / "out/weights").stat().st_nlink == 1
    assert (tmp_path / "out/weights").read_bytes() == FILES["weights"]
    assert not again(store).place(digest, tmp_path / "out").changed
