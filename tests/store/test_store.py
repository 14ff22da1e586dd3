"""What was recorded is found by its key, and nothing else is; two builds of one key run it once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colbuild.store import open_store
from tests.store.processes import RECORD, fill, let_go, other


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def finished(store, **changed):
    record = replace(RECORD, output=fill(store, {"weights": b"w"}), **changed)
    store.record("fam", record)
    return record


def test_recorded_action_is_found_by_its_key_alone(store):
    record = finished(store)
    assert store.lookup(record.key) == record
    assert store.lookup("0" * 64) is None
    assert open_store(store.root).lookup(record.key) == record


def test_records_are_every_readable_one_by_key_even_without_its_result(store):
    assert list(store.records()) == []
    record = finished(store, key="b" * 64)
    store.record("fam", replace(RECORD, key="a" * 64, output="0" * 64))
    store.record("fam", replace(RECORD, key="c" * 64))
    store.layout.action("c" * 64).write_text("{")
    assert [found.key for found in store.records()] == ["a" * 64, record.key]


def test_what_is_not_published_is_not_found(store):
    store.prepare()
    store.record("fam", replace(RECORD, output="0" * 64))
    assert store.lookup(RECORD.key) is None


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"key": 1}', "\x00\xff"])
def test_broken_record_means_that_it_is_built_again(store, text):
    record = finished(store)
    store.layout.action(record.key).write_text(text)
    store.layout.step("fam", record.step).write_text(text)
    assert store.lookup(record.key) is None
    assert store.last("fam", record.step) is None
    assert store.set_aside_damaged(record.key) is None
    store.record("fam", record)
    assert store.lookup(record.key) == store.last("fam", record.step) == record


def test_record_under_another_key_is_not_taken_for_it(store):
    record = finished(store)
    path = store.layout.action("f" * 64)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(store.layout.action(record.key).read_bytes())
    assert store.lookup("f" * 64) is None


def test_last_run_is_remembered_by_family_and_step(store):
    first = finished(store)
    other_step = finished(store, key="e" * 64, step="export phone/phone-int8", op="export")
    assert store.last("fam", first.step) == first
    assert store.last("fam", other_step.step) == other_step
    assert store.last("other", first.step) is None
    newer = finished(store, key="f" * 64)
    assert store.last("fam", first.step) == newer
    store.note_step("fam", first)
    assert store.last("fam", first.step) == first


def test_noting_what_is_known_already_writes_nothing(store):
    record = finished(store)
    path = store.layout.step("fam", record.step)
    before = path.stat()
    store.note_step("fam", record)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("names", [("a/b", "a%2Fb"), ("../escape", "escape"), ("a b", "a_b"), ("é", "e")])
def test_names_with_odd_letters_stay_apart_and_inside_the_store(store, names):
    store.prepare()
    for name in names:
        store.note_step(name, replace(RECORD, step=name))
    assert [store.last(name, name).step for name in names] == list(names)
    assert len(list((store.root / "steps").glob("*/*.json"))) == 2


def test_values_are_remembered_by_kind_and_digest(store):
    store.prepare()
    assert store.remembered("config", "d" * 64) is None
    store.remember("config", "d" * 64, {"layers": 30})
    store.remember("size", "d" * 64, 7)
    assert store.remembered("config", "d" * 64) == {"layers": 30}
    assert store.remembered("size", "d" * 64) == 7
    assert list((store.root / "tmp").iterdir()) == []


def test_record_survives_the_way_through_json(store):
    params = {
        "recipe": {"betas": [0.9, 0.95], "lr": 5e-4},
        "limit": None,
        "text": "Zürich",
        "deep": {"a": [1, {"b": True}]},
    }
    assert finished(store, params=params).params == store.lookup(RECORD.key).params == params


def test_two_builds_of_one_key_run_it_once_and_the_loser_waits(tmp_path, store):
    log = tmp_path / "log"
    store.prepare()
    with other("build", str(store.root), str(log)) as first, other("build", str(store.root), str(log)) as second:
        let_go(first)
        let_go(second)
        assert (first.wait(timeout=30), second.wait(timeout=30)) == (0, 0)
    assert sorted(log.read_text().splitlines()) in (["cached waited", "ran"], ["cached", "ran"])
    assert store.lookup(RECORD.key) is not None


def test_held_key_does_not_hinder_others(store):
    store.prepare()
    with store.hold("a" * 64, lambda: 1 / 0), store.hold("b" * 64, lambda: 1 / 0):
        pass
