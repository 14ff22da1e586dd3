"""Nothing in a store is believed without a check: one flipped bit, anywhere in any kind of file, changes no answer."""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from colbuild.errors import BuildError
from colbuild.fetch import downloads
from colbuild.fetch.downloads import Download, fetch_once, recorded
from colbuild.fetch.remembered_digests import remembered_hash
from colbuild.hashing import hash_file
from colbuild.ops import generate
from colbuild.plan.cost import machine
from colbuild.plan.lock.lock_file import Lock, LockedSource, write_lock
from colbuild.progress import silent
from colbuild.store import open_store
from colbuild.store.collecting.collector import collect
from colbuild.store.collecting.pins import Pin, pin, read_pins
from colbuild.store.collecting.projects import make_project_id, project_id
from colbuild.store.collecting.roots import note_root, read_roots
from colbuild.store.objects import look
from tests.store.processes import RECORD, fill

URI = "pypi://a/b.txt"


def flips(path):
    """Every digit and letter of a file changed by one bit, which keeps it JSON; one at a time."""
    path.chmod(0o644)
    good = path.read_bytes()
    for place, byte in enumerate(good):
        if chr(byte).isalnum() and byte < 128:
            bad = bytearray(good)
            bad[place] ^= 1
            path.write_bytes(bad)
            yield place
    path.write_bytes(good)


def settled(path):
    """A file that was left alone for long enough to be remembered."""
    os.utime(path, (1, 1))
    return path


@pytest.fixture
def store(tmp_path):
    made = open_store(tmp_path / ".colbuild")
    made.prepare()
    return made


def test_remembered_digests_of_files(store, tmp_path, monkeypatch):
    """These go into keys and into the lock."""
    monkeypatch.setattr("colbuild.fetch.remembered_digests._SETTLED_NS", -1)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    assert remembered_hash(path, store.downloads) == hash_file(path)
    [note] = store.downloads.glob("hashes/*/*.json")
    for place in flips(note):
        assert remembered_hash(path, store.downloads) == hash_file(path), place


def test_digest_that_an_older_version_remembered_is_made_anew(store, tmp_path, monkeypatch):
    monkeypatch.setattr("colbuild.fetch.remembered_digests._SETTLED_NS", -1)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    remembered_hash(path, store.downloads)
    [note] = store.downloads.glob("hashes/*/*.json")
    signature = json.loads(note.read_text())["signature"]
    note.write_text(json.dumps({"signature": signature, "sha256": "0" * 64}))
    assert remembered_hash(path, store.downloads) == hash_file(path)


def test_records_of_downloads(store):
    """Their origin, such as a hub's commit, goes into the lock."""

    def get(path, _known, _report):
        path.write_bytes(b"text")
        return {"commit": "0123456789abcdef"}

    fetch_once(Download(URI, "b.txt", get), downloads=store.downloads, sha256=None, report=silent)
    good = recorded(store.downloads, URI)
    assert good.origin == {"commit": "0123456789abcdef"}
    [path] = store.downloads.glob("*/record.json")
    for place in flips(path):
        assert recorded(store.downloads, URI) in (None, good), place
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in values.items() if name != "check"}))
    assert recorded(store.downloads, URI) == good
    assert downloads.kept(store.downloads, URI, "b.txt").read_bytes() == b"text"


def test_action_records_and_notes_of_steps(store):
    made = replace(RECORD, output=fill(store, {"weights": b"1"}))
    store.record("fam", made)
    for place in flips(store.layout.action(made.key)):
        assert store.lookup(made.key) in (None, made), place
    for place in flips(store.layout.step("fam", made.step)):
        assert store.last("fam", made.step) in (None, made), place


def test_remembered_values(store):
    store.remember("config", "d" * 64, {"layers": 30, "name": "a76"})
    for place in flips(store.layout.memo("config", "d" * 64)):
        assert store.remembered("config", "d" * 64) in (None, {"layers": 30, "name": "a76"}), place


def test_lists_of_files_and_stamps(store):
    digest = fill(store, {"weights": b"1"})
    for place in flips(store.layout.tree(digest)):
        assert store.verify(digest) is not None, place
    (store.files(digest) / "weights").chmod(0o644)
    (store.files(digest) / "weights").write_bytes(b"2")
    for place in flips(store.layout.stamps(digest)):
        # Nothing in it makes wrong bytes right.
        assert look(store.layout, digest).damage is not None, place


def test_notes_of_what_lies_in_out(store, tmp_path):
    digest, target = fill(store, {"weights": b"right"}), tmp_path / "out/model"
    store.place(digest, target)
    settled(target / "weights")
    (target / "weights").write_bytes(b"wrong")
    [note] = (store.root / "outputs").iterdir()
    good = note.read_bytes()
    for place in flips(note):
        if place % 5:
            continue
        placement = store.place(digest, target)
        assert (target / "weights").read_bytes() == b"right", place
        # What the user wrote is not lost either.
        assert (placement.kept / "weights").read_bytes() == b"wrong", place
        (target / "weights").write_bytes(b"wrong")
        note.write_bytes(good)


def test_roots_and_pins_keep_what_they_kept_or_say_that_nobody_can_tell(store, tmp_path):
    digest = fill(store, {"weights": b"1"})
    (tmp_path / "a.lock").write_text("{}")
    needed = {"distill a76": replace(RECORD, output=digest)}
    note_root(store, lock=tmp_path / "a.lock", spec=tmp_path / "a.yaml", family="a", records=needed, sources=[URI])
    [noted] = read_roots(store)
    for place in flips(noted.path):
        try:
            assert read_roots(store) == (noted,), place
        except BuildError as error:
            assert "is damaged: the results" in error.message
    pin(store, Pin(digest, "phone"))
    for place in flips(store.layout.folder("pins") / f"{digest}.json"):
        [held] = read_pins(store)
        assert held.digest == digest, place


def test_ids_of_projects(tmp_path):
    made = make_project_id(tmp_path)
    for place in flips(tmp_path / ".colbuild/project.json"):
        assert project_id(tmp_path) in ("", made), place


def test_speeds_of_machines(tmp_path, monkeypatch):
    path = tmp_path / "machine.json"
    known = {machine.this_machine(): machine.MachineSpeed(123456789.0, 98765.0)}
    machine.remember(path, known)
    for place in flips(path):
        assert machine._remembered(path) in ({}, known), place


def test_texts_that_an_interrupted_step_wrote(tmp_path):
    kept = generate.Batch(3, [("Once upon a time", 4), ("the end", 2)])
    generate._keep(tmp_path, 0, kept)
    assert generate._kept(tmp_path, 0) == kept
    [path] = tmp_path.iterdir()
    for place in flips(path):
        assert generate._kept(tmp_path, 0) in (None, kept), place


def test_a_name_that_is_no_digest_of_the_store_is_looked_up_nowhere(store):
    """Records of another key, or of a key in capitals on a disk that does not tell them apart, are not this key's."""
    made = replace(RECORD, key=hashlib.sha256(b"1").hexdigest(), output=fill(store, {"weights": b"1"}))
    store.record("fam", made)
    other = made.key.upper()
    place = store.layout.action(other)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(store.layout.action(made.key).read_bytes())
    assert store.lookup(made.key) == made
    assert store.lookup(other) is None


# -- power losses and collectors at once ------------------------------------------------------------------------------


def test_what_pins_and_keeps_is_on_the_disk_before_its_name_is(tmp_path, store, monkeypatch):
    """The lock, a project's id, roots and pins: a power loss leaves the old file or the new one, never an empty one."""
    synced, named = set(), []
    fsync, replace_file = os.fsync, Path.replace

    def noting(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def naming(path, target):
        named.append((Path(target).name, path.stat().st_ino in synced))
        return replace_file(path, target)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Path, "replace", naming)
    lock = Lock({}, {}, (), {}, {URI: LockedSource("0" * 64)}, {})
    write_lock(tmp_path / "fam.lock", lock)
    digest = fill(store, {"weights": b"1"})
    records = {"a": replace(RECORD, output=digest)}
    note_root(store, lock=tmp_path / "fam.lock", spec=tmp_path / "f.yaml", family="f", records=records, sources=[])
    pin(store, Pin(digest, "phone"))
    durable = [there for name, there in named if name in ("fam.lock", "project.json") or name.endswith(".json")]
    assert len(durable) >= 4
    assert all(durable)


def test_collectors_at_once_remove_the_same_and_keep_what_is_needed(tmp_path, store):
    (tmp_path / "fam.lock").write_text("{}")
    needed = fill(store, {"weights": b"needed"})
    records = {"a": replace(RECORD, output=needed)}
    note_root(store, lock=tmp_path / "fam.lock", spec=tmp_path / "f.yaml", family="f", records=records, sources=[])
    garbage = {fill(store, {"weights": b"%d" % number}) for number in range(30)}
    later = time.time() + 3 * 24 * 3600
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: collect(store, delete=True, now=later), range(4)))
    assert [path.name for path in store.layout.folder("objects").glob("*/*")] == [needed]
    assert sorted(item.name for one in found for item in one.garbage) == sorted(garbage)
    assert list(store.layout.folder("tmp").iterdir()) == []
