"""The lock: what it pins, how it tells what differs, and what it does with files that cannot be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from colbuild.errors import EXIT_SOURCE_UNAVAILABLE, SourceUnavailableError, SpecError
from colbuild.fetch.downloads import Download, Pin, fetch_once
from colbuild.plan.lock.lock import LockMode, compare, open_lock
from colbuild.plan.lock.lock_file import Link, LockedSource, lock_path, lock_text, read_lock, write_lock
from colbuild.plan.lock.locked_chain import lock_of, pinned_chain
from colbuild.plan.lock.locked_sources import sources_of
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.plan.steps.operations import OPERATIONS, epochs
from colbuild.progress import silent
from colbuild.spec import Problem, load_family
from colbuild.store import open_store
from tests.helpers.configs import SMOLLM2
from tests.plan.built import SOURCES
from tests.plan.families import ANCHORS, ANSNET, DESNETS, DISTILL, load

NAME = "specs/family.lock"
ROOT = Path(__file__).parents[2]
TAGGED = "hf://org/text@main/text.txt"
COMMIT = "b" * 40


def locked(root, **parts):
    """Writes a project and its lock; returns the lock."""
    loaded = load(root, **parts)
    contents = {uri: LockedSource(digest) for uri, digest in SOURCES.items()} | {TAGGED: LockedSource("d" * 64)}
    lock = lock_of(loaded.family, SMOLLM2, resolve_chain(loaded, ANSNET), contents)
    write_lock(lock_path(loaded.path), lock)
    return lock


def state(root, mode=LockMode.REFRESH, look=SOURCES.get, **parts):
    """How the lock stands against the project as given now."""
    loaded = load(root, **parts)
    return compare(open_lock(loaded, mode), loaded, look)


def shapes(chain):
    members = [*chain.anchors, *(placed.member for placed in chain.desnets)]
    return {member.name: member.structure.shape for member in members}


def test_another_checkpoint_interval_leaves_a_lock_up_to_date(tmp_path):
    lock = locked(tmp_path)
    distill = f"{DISTILL}checkpoint_every: 1min\n"
    assert state(tmp_path, LockMode.LOCKED, distill=distill).up_to_date
    assert locked(tmp_path, distill=distill) == lock


# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_lock_is_read_as_it_was_written_and_the_same_lock_has_the_same_bytes(tmp_path):
    lock = locked(tmp_path)
    path = tmp_path / NAME
    assert read_lock(path, NAME) == lock
    assert lock_text(lock) == path.read_text(encoding="utf-8")
    assert not write_lock(path, lock)


def test_a_lock_is_sorted_json_without_times(tmp_path):
    locked(tmp_path)
    text = (tmp_path / NAME).read_text(encoding="utf-8")
    values = json.loads(text)
    assert text == json.dumps(values, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert sorted(values) == ["ansnet", "digest", "epochs", "format", "route", "shapes", "sources", "spec"]
    assert values["route"] == [
        {"student": "a100", "teacher": "ansnet"}, {"student": "a76", "teacher": "a100"},
    ]  # fmt: skip
    assert values["spec"]["values"]["anchors"][0]["recipe"]["tokens"] == 80_000


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "=======", ">>>>>>> other"])
def test_a_merge_conflict_is_recognised_at_its_line(tmp_path, marker):
    locked(tmp_path)
    path = tmp_path / NAME
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:3], marker, *lines[3:]]))
    found = read_lock(path, NAME)
    assert isinstance(found, Problem)
    assert "merge conflict" in found.message
    assert str(found.place) == f"{NAME}:4"


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"layers": ', '"layers": 1'),
        lambda text: text.replace('"format": "colbuild.lock.v1"', '"format": "other"'),
        lambda text: text[:-20],
        lambda _: "[]",
        lambda _: "",
        lambda _: "[" * 100_000,
        lambda _: '{"format": "colbuild.lock.v1"}',
        lambda _: '{"format": NaN, "digest": NaN}',
    ],
)
def test_what_is_no_lock_is_told_and_never_used(tmp_path, edit):
    locked(tmp_path)
    path = tmp_path / NAME
    path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert isinstance(read_lock(path, NAME), Problem)
    assert state(tmp_path).line.startswith("out of date: ")
    for mode in (LockMode.LOCKED, LockMode.FROZEN):
        with pytest.raises(SpecError, match=NAME):
            state(tmp_path, mode)


def test_a_lock_of_a_newer_colbuild_is_not_overwritten(tmp_path):
    (tmp_path / "specs").mkdir()
    (tmp_path / NAME).write_text('{"format": "colbuild.lock.v2"}')
    with pytest.raises(SpecError, match=r"colbuild\.lock\.v2"):
        state(tmp_path)


# -- what differs -----------------------------------------------------------------------------------------------------


def test_an_unchanged_family_is_up_to_date(tmp_path):
    locked(tmp_path)
    for mode in LockMode:
        assert state(tmp_path, mode).up_to_date
    assert state(tmp_path, LockMode.LOCKED).line == "up to date"


def test_a_family_without_a_lock_has_none(tmp_path):
    assert state(tmp_path).line == "none"
    for mode in (LockMode.LOCKED, LockMode.FROZEN):
        with pytest.raises(SpecError, match=f"there is no {NAME}"):
            state(tmp_path, mode)


def test_a_changed_value_is_named_once_with_its_line(tmp_path):
    """Two anchors share the recipe."""
    locked(tmp_path)
    now = state(tmp_path, distill=DISTILL.replace("temperature: 1.0", "temperature: 2.0"))
    assert now.differences == ("anchors.a100.recipe.loss.temperature 1.0 -> 2.0  recipes/distill.yaml:3",)


def test_members_are_compared_by_name(tmp_path):
    locked(tmp_path)
    first = "  - {name: tablet, params: 95M}\n"
    now = state(tmp_path, desnets=first + DESNETS.replace("phone, params: 88M", "phone, params: 89M"))
    tablet, phone = now.differences
    assert tablet.startswith("desnets.tablet added  specs/family.yaml:")
    assert phone.startswith("desnets.phone.params 88000000 -> 89000000  specs/family.yaml:")
    fewer = state(tmp_path, desnets=DESNETS.splitlines(keepends=True)[0])
    assert set(fewer.differences) == {"desnets.kiosk removed", "desnets.watch removed"}


def test_a_comment_or_another_spelling_of_a_number_changes_nothing(tmp_path):
    locked(tmp_path)
    assert state(tmp_path, anchors="    # fine\n" + ANCHORS.replace("76M", "76000k")).up_to_date


def test_a_changed_file_and_a_raised_epoch_are_named(tmp_path):
    lock = locked(tmp_path)
    write_lock(tmp_path / NAME, replace(lock, epochs={**epochs(), "distill": 0}))
    now = state(tmp_path, look={**SOURCES, "./corpus.txt": "e" * 64}.get)
    assert now.differences == (
        f"./corpus.txt {'c' * 12} -> {'e' * 12}",
        f"epoch of 'distill' 0 -> {OPERATIONS['distill'].epoch}",
    )
    assert now.pins, "shapes follow from neither"


def test_locked_refuses_with_the_fields_that_differ(tmp_path):
    locked(tmp_path)
    with pytest.raises(SpecError, match=r"out of date\n.*temperature 1\.0 -> 2\.0"):
        state(tmp_path, LockMode.LOCKED, distill=DISTILL.replace("temperature: 1.0", "temperature: 2.0"))


# -- what is pinned ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("desnets", [DESNETS, "  - {name: near, params: 75900k}\n  - {name: top, params: 120M}\n"])
def test_the_locked_chain_is_the_solved_one(tmp_path, desnets):
    lock = locked(tmp_path, desnets=desnets)
    loaded = load(tmp_path, desnets=desnets)
    pinned = pinned_chain(loaded, ANSNET, state(tmp_path, desnets=desnets))
    assert pinned == resolve_chain(loaded, ANSNET)
    assert shapes(pinned) == lock.shapes


def test_shapes_come_from_the_lock_and_not_from_the_solver(tmp_path):
    """A colbuild that solves differently does not change a family that is locked."""
    lock = locked(tmp_path)
    other = {**lock.shapes, "phone": replace(lock.shapes["phone"], ffn=lock.shapes["phone"].ffn - 1)}
    write_lock(tmp_path / NAME, replace(lock, shapes=other))
    assert shapes(pinned_chain(load(tmp_path), ANSNET, state(tmp_path))) == other


def test_frozen_keeps_shapes_and_route_though_the_spec_says_something_else(tmp_path):
    lock = locked(tmp_path)
    parts = {"desnets": DESNETS.replace("88M", "92M"), "anchors": ANCHORS.replace("103M", "105M")}
    frozen = state(tmp_path, LockMode.FROZEN, **parts)
    assert "88000000 -> 92000000" in frozen.line
    chain = pinned_chain(load(tmp_path, **parts), ANSNET, frozen)
    assert shapes(chain) == lock.shapes
    assert [(step.student.name, step.teacher.name) for step in chain.route] == [("a100", "ansnet"), ("a76", "a100")]


def test_the_route_in_the_lock_is_taken_where_the_planner_would_choose_another(tmp_path):
    anchors = ANCHORS.replace("    - {name: a76", "    - {name: a90, params: 90M, tokens: 1k}\n    - {name: a76")
    desnets = "  - {name: watch, params: 76M}\n"
    lock = locked(tmp_path, anchors=anchors, desnets=desnets)
    route = (Link("a100", "ansnet"), Link("a90", "a100"), Link("a76", "a90"))
    assert lock.route != route
    write_lock(tmp_path / NAME, replace(lock, route=route))
    parts = {"anchors": anchors, "desnets": desnets}
    chain = pinned_chain(load(tmp_path, **parts), ANSNET, state(tmp_path, **parts))
    assert tuple(Link(step.student.name, step.teacher.name) for step in chain.route) == route


def test_frozen_refuses_a_member_that_the_lock_does_not_know(tmp_path):
    locked(tmp_path)
    parts = {"desnets": DESNETS + "  - {name: tablet, params: 95M}\n"}
    with pytest.raises(SpecError, match=f"'tablet' is not in {NAME}"):
        pinned_chain(load(tmp_path, **parts), ANSNET, state(tmp_path, LockMode.FROZEN, **parts))


def test_frozen_refuses_a_route_that_does_not_reach_a_desnet(tmp_path):
    lock = locked(tmp_path)
    write_lock(tmp_path / NAME, replace(lock, route=lock.route[:1]))
    with pytest.raises(SpecError, match="does not reach 'a76'"):
        pinned_chain(load(tmp_path), ANSNET, state(tmp_path, LockMode.FROZEN))


def test_the_ansnets_configuration_is_used_for_its_very_content_only(tmp_path):
    lock = locked(tmp_path)
    assert lock.describes("./ansnet", "a" * 64)
    assert not lock.describes("./ansnet", "f" * 64)
    assert not lock.describes("./corpus.txt", "c" * 64)


# -- sources ----------------------------------------------------------------------------------------------------------


def test_a_source_that_is_not_here_has_the_digest_in_the_lock(tmp_path):
    """So that a fresh clone plans without network and without the AnsNet's file."""
    locked(tmp_path)
    found = sources_of(load(tmp_path), open_store(tmp_path / "store"), state(tmp_path))
    assert found.digest("./ansnet") == "a" * 64
    assert found.digest(TAGGED) == "d" * 64
    with pytest.raises(SourceUnavailableError):
        found.digest("./unknown")


def test_a_file_of_the_users_may_change_unless_the_lock_is_frozen(tmp_path):
    locked(tmp_path)
    (tmp_path / "corpus.txt").write_text("new")
    free = sources_of(load(tmp_path), open_store(tmp_path / "store"), state(tmp_path))
    assert free.digest("./corpus.txt") not in (None, "c" * 64)
    frozen = sources_of(load(tmp_path), open_store(tmp_path / "store"), state(tmp_path, LockMode.FROZEN))
    with pytest.raises(SourceUnavailableError, match=f"does not match {NAME}") as refused:
        frozen.check("./corpus.txt")
    assert refused.value.exit_code == EXIT_SOURCE_UNAVAILABLE
    with pytest.raises(SourceUnavailableError, match=f"does not match {NAME}"):
        frozen.fetch("./corpus.txt", lambda _: None)


def test_what_is_fetched_is_asked_for_by_the_locked_commit_and_refused_if_it_differs(tmp_path):
    asked = []

    def get(target, origin, _):
        asked.append(dict(origin))
        target.write_text("moved on")
        return {"commit": COMMIT}

    download = Download(TAGGED, "text.txt", get)
    pin = Pin("d" * 64, {"commit": COMMIT}, NAME)
    for _ in range(2):
        with pytest.raises(SourceUnavailableError, match=f"does not match {NAME}"):
            fetch_once(download, downloads=tmp_path, sha256=None, report=silent, pin=pin)
    assert asked == [{"commit": COMMIT}] * 2, "and what was refused is not kept"


@pytest.mark.parametrize("lock", sorted((ROOT / "specs").glob("*.lock")), ids=lambda path: path.stem)
def test_the_locks_that_are_committed_are_of_the_specs_and_operations_as_they_are(lock):
    """Else the first build of a clone would change them."""
    loaded = load_family(lock.with_suffix(".yaml"))
    state = compare(open_lock(loaded, LockMode.REFRESH), loaded, lambda uri: None)
    assert state.lock is not None
    assert state.differences == ()
