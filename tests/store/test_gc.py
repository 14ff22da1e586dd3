"""The collector keeps what a root, a pin or a lease needs, and removes the rest; beside running builds too."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.errors import BuildError
from colbuild.run.history.build_record import recorded
from colbuild.store import open_store
from colbuild.store.collecting.collector import collect
from colbuild.store.collecting.garbage import Kind, Policy
from colbuild.store.collecting.pins import Pin, pin, unpin
from colbuild.store.collecting.roots import note_root, read_roots
from colbuild.store.layout import download_name
from colbuild.store.leases import LEASE, renew
from colbuild.store.stamps import stamp_of
from tests.store.processes import RECORD, fill, other

DAY = 24 * 3600.0
LATER = 2 * DAY
"""Seconds from now at which nothing made now is leased any more."""


@pytest.fixture
def store(tmp_path):
    made = open_store(tmp_path / "store")
    made.prepare()
    return made


def build(store, project, *names, family="fam", done=True, sources=()):
    """What a build of a lock does that makes a result for each name; returns the digests by name."""
    project.mkdir(exist_ok=True)
    lock = project / "family.lock"
    lock.write_text("{}")
    records = {name: record(store, name) for name in names}
    steps = list(names) if done else None
    note_root(
        store, lock=lock, spec=project / "family.yaml", family=family, records=records, sources=sources, steps=steps
    )
    return {name: record.output for name, record in records.items()}


def record(store, name):
    made = replace(RECORD, key=name.encode().hex().ljust(64, "0"), step=name, output=fill(store, {name: name.encode()}))
    store.record("fam", made)
    return made


def later(store, seconds=LATER, *, delete=True, **policy):
    return collect(store, Policy(**policy), delete=delete, now=time.time() + seconds)


def here(store):
    return {path.name for path in store.layout.folder("objects").glob("*/*")}


def names(collected, kind):
    return {item.name for item in collected.garbage if item.kind is kind}


# -- what stays -------------------------------------------------------------------------------------------------------


def test_what_a_lock_needs_stays_and_the_rest_goes(store, tmp_path):
    needed = build(store, tmp_path / "a", "x", "y")
    garbage = record(store, "z").output
    collected = later(store)
    assert here(store) == set(needed.values())
    assert names(collected, Kind.OBJECT) == {garbage}
    assert collected.kept == 2
    assert all(store.verify(digest) is None for digest in needed.values())


def test_dry_run_says_the_same_and_changes_nothing(store, tmp_path):
    build(store, tmp_path / "a", "x")
    record(store, "z")
    before = {path: stamp_of(path.stat()) for path in store.root.rglob("*")}
    dry = later(store, delete=False)
    assert {path: stamp_of(path.stat()) for path in store.root.rglob("*")} == before
    assert not dry.removed
    wet = later(store)
    assert wet.removed
    assert (wet.garbage, wet.size, wet.kept) == (dry.garbage, dry.size, dry.kept)


def test_removing_a_lock_frees_what_only_it_needed(store, tmp_path):
    build(store, tmp_path / "a", "x", "shared")
    kept = build(store, tmp_path / "b", "y", "shared")
    (tmp_path / "a" / "family.lock").unlink()
    collected = later(store)
    assert here(store) == set(kept.values())
    assert [root.lock for root in collected.ended] == [str(tmp_path / "a" / "family.lock")]
    assert [noted.root.lock for noted in read_roots(store)] == [str(tmp_path / "b" / "family.lock")]


def test_pin_keeps_a_result_until_it_is_unpinned(store, tmp_path):
    build(store, tmp_path / "a", "x")
    pinned = record(store, "z").output
    assert pin(store, Pin(pinned, "phone", "interpolate phone", "fam"))
    later(store)
    assert pinned in here(store)
    unpin(store, "phone")
    later(store)
    assert pinned not in here(store)


def test_damaged_pin_still_keeps_its_result(store, tmp_path):
    build(store, tmp_path / "a", "x")
    pinned = record(store, "z").output
    pin(store, Pin(pinned, "phone"))
    (store.layout.folder("pins") / f"{pinned}.json").write_text("{")
    later(store)
    assert pinned in here(store)


def test_lease_keeps_what_was_made_lately(store, tmp_path):
    build(store, tmp_path / "a", "x")
    fresh = record(store, "z").output
    later(store, LEASE - 60)
    assert fresh in here(store)
    later(store, LEASE + 60)
    assert fresh not in here(store)


def test_result_from_the_future_is_fresh_since_the_clock_was_set_back(store, tmp_path):
    build(store, tmp_path / "a", "x")
    fresh = record(store, "z").output
    later(store, -30 * DAY)
    assert fresh in here(store)


def test_using_a_result_begins_its_lease_anew(store, tmp_path):
    build(store, tmp_path / "a", "x")
    claimed, published, idle = record(store, "z"), record(store, "v"), record(store, "w")
    for made in (claimed, published, idle):
        os.utime(store.layout.object(made.output), (0, 0))
    assert store.claim(claimed.key) == claimed
    assert renew(store.layout, published.output)
    later(store, 0)
    assert here(store) >= {claimed.output, published.output}
    assert idle.output not in here(store)


def test_what_is_gone_can_neither_be_claimed_nor_renewed(store):
    made = record(store, "z")
    store.layout.object(made.output).rename(store.layout.folder("tmp") / "gone")
    assert store.claim(made.key) is None
    assert not renew(store.layout, made.output)


def test_claiming_from_a_store_that_does_not_exist_makes_none(tmp_path):
    assert open_store(tmp_path / "none").claim("k" * 64) is None
    assert list(tmp_path.iterdir()) == []


def test_action_records_stay_for_estimates(store, tmp_path):
    build(store, tmp_path / "a", "x")
    made = record(store, "z")
    later(store)
    assert made in list(store.records())
    assert store.lookup(made.key) is None


# -- what must not go wrong -------------------------------------------------------------------------------------------


def test_damaged_root_stops_the_collector_since_nobody_knows_what_it_needs(store, tmp_path):
    needed = build(store, tmp_path / "a", "x")
    [path] = store.layout.folder("roots").iterdir()
    digest = needed["x"]
    path.write_text(path.read_text().replace(digest, digest[::-1]))
    with pytest.raises(BuildError, match="is damaged: the results"):
        later(store)
    assert here(store) == {digest}


def test_store_without_roots_is_not_emptied(store):
    """As one from before roots were noted."""
    made = record(store, "z").output
    assert later(store, delete=False).rootless
    with pytest.raises(BuildError, match="no build has recorded"):
        later(store)
    assert here(store) == {made}


def test_store_that_does_not_exist_has_no_garbage_and_is_not_made(tmp_path):
    store = open_store(tmp_path / "none")
    assert collect(store).garbage == collect(store, delete=True).garbage == ()
    assert list(tmp_path.iterdir()) == []


def test_draft_of_a_running_build_stays(store, tmp_path):
    build(store, tmp_path / "a", "x")
    with store.draft() as draft:
        (draft / "files" / "weights").write_bytes(b"half")
        later(store, 300 * DAY)
        assert store.publish(draft).digest in here(store)


def test_claimed_result_never_vanishes_while_the_collector_runs(store, tmp_path):
    """Each round an old result is found by a build while another process collects."""
    build(store, tmp_path / "a", "x")
    lost, hits, misses = [], [], []
    for number in range(30):
        made = record(store, f"old-{number}")
        os.utime(store.layout.object(made.output), (0, 0))
        start = threading.Barrier(2)

        def collecting(start=start):
            start.wait()
            collect(store, delete=True)

        collector = threading.Thread(target=collecting)
        collector.start()
        start.wait()
        time.sleep(0.0005 * (number % 8))
        found = store.claim(made.key)
        collector.join()
        (misses if found is None else hits).append(number)
        if found is not None and store.verify(made.output) is not None:
            lost.append(number)
    assert lost == []
    assert len(hits) + len(misses) == 30


def test_lease_is_not_shortened_under_a_running_build(store, tmp_path):
    """What it has made is noted in its root only now and then."""
    build(store, tmp_path / "a", "x")
    fresh = record(store, "z").output
    with recorded(lambda _: None, store.layout.folder("runs")) as running:
        with pytest.raises(BuildError, match=f"a build is running \\({running.id}\\)"):
            collect(store, Policy(lease=0.0), delete=True)
        assert fresh in here(store)
        assert collect(store, delete=True).garbage == ()
    collect(store, Policy(lease=0.0), delete=True)
    assert fresh not in here(store)


def test_interrupted_collection_is_finished_by_the_next_build(store, tmp_path):
    build(store, tmp_path / "a", "x")
    left = store.layout.folder("tmp") / "abc"
    (left / "object-z").mkdir(parents=True)
    store.prepare()
    assert not left.exists()


# -- everything else --------------------------------------------------------------------------------------------------


def test_source_stays_while_a_lock_needs_it_and_its_record_stays_always(store, tmp_path):
    build(store, tmp_path / "a", "x", sources=["pypi://needed", "./here.txt"])
    places = {}
    for uri in ("pypi://needed", "pypi://other"):
        places[uri] = store.downloads / download_name(uri)
        (places[uri] / "content").mkdir(parents=True)
        (places[uri] / "content" / "file").write_bytes(b"12345")
        (places[uri] / "record.json").write_text("{}")
    killed = places["pypi://needed"] / "partial"
    killed.mkdir()
    assert later(store, LEASE - 60).garbage == ()
    collected = later(store)
    assert names(collected, Kind.DOWNLOAD) == {download_name("pypi://needed"), download_name("pypi://other")}
    assert collected.size == 5
    assert (places["pypi://needed"] / "content" / "file").exists()
    assert not killed.exists()
    assert sorted(path.name for path in places["pypi://other"].iterdir()) == ["record.json"]


def test_what_an_interrupted_step_can_go_on_from_stays_two_weeks_or_while_somebody_works_on_it(store, tmp_path):
    build(store, tmp_path / "a", "x")
    for key in ("idle", "busy"):
        store.layout.partial(key).mkdir()
        (store.layout.partial(key) / "state").write_bytes(b"weights")
    later(store, 13 * DAY)
    assert store.layout.partial("idle").exists()
    with other("hold", str(store.layout.lock("busy"))):
        later(store, 15 * DAY)
        assert not store.layout.partial("idle").exists()
        assert store.layout.partial("busy").exists()


def test_damaged_results_leave_the_quarantine_after_the_lease(store, tmp_path):
    build(store, tmp_path / "a", "x")
    (store.layout.folder("quarantine") / "abc-1").mkdir()
    later(store, LEASE - 60)
    assert (store.layout.folder("quarantine") / "abc-1").exists()
    assert names(later(store), Kind.QUARANTINE) == {"abc-1"}


def test_what_compilers_made_goes_as_a_whole_two_weeks_after_something_was_added(store, tmp_path):
    build(store, tmp_path / "a", "x")
    compiled = store.layout.folder("compiled")
    assert later(store, 15 * DAY).garbage == ()
    (compiled / "aa").mkdir()
    (compiled / "aa" / "kernel.so").write_bytes(b"12345")
    assert later(store, 13 * DAY).garbage == ()
    [item] = later(store, 15 * DAY).garbage
    assert (item.kind, item.name, item.size, item.freed) == (Kind.COMPILED, "compiled", 5, 5)
    assert not compiled.exists()
    store.prepare()
    assert compiled.is_dir()


def test_the_newest_records_of_builds_stay_with_their_logs(store, tmp_path):
    build(store, tmp_path / "a", "x")
    runs, logs = store.layout.folder("runs"), store.layout.folder("logs")
    for number in range(5):
        (runs / f"2026-{number}.jsonl").write_text("{}\n")
        (logs / f"2026-{number}").mkdir()
        (logs / f"2026-{number}" / "step.log").write_text("said")
    (logs / "alone").mkdir()
    assert later(store, 13 * DAY, runs=2).garbage == ()
    collected = later(store, 15 * DAY, runs=2)
    assert names(collected, Kind.RUN) == {"2026-0", "2026-1", "2026-2"}
    assert names(collected, Kind.LOG) == {"2026-0", "2026-1", "2026-2", "alone"}
    assert sorted(path.name for path in logs.iterdir()) == ["2026-3", "2026-4"]


def test_bytes_that_out_shares_are_not_said_to_be_freed(store, tmp_path):
    build(store, tmp_path / "a", "x")
    garbage = fill(store, {"large": b"1" * 1000, "small": b"22"})
    os.link(store.files(garbage) / "large", tmp_path / "large")
    listed = sum(path.stat().st_size for path in store.layout.object(garbage).glob("*.json"))
    [item] = later(store, delete=False).garbage
    assert item.size == 1002 + listed
    assert item.freed == 2 + listed
    (tmp_path / "large").unlink()
    [item] = later(store, delete=False).garbage
    assert item.freed == item.size


# -- the property -----------------------------------------------------------------------------------------------------

PLANS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5 * LEASE, 0.99 * LEASE, 1.01 * LEASE, 9 * LEASE, -LEASE]),  # age
        st.sets(st.sampled_from(["living", "other", "dead"])),  # the locks that need it
        st.booleans(),  # pinned
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(PLANS)
def test_every_root_is_whole_after_a_collection_and_what_went_was_neither_needed_nor_leased(plans):
    with tempfile.TemporaryDirectory() as folder:
        store, now = open_store(Path(folder, "store")), time.time()
        store.prepare()
        made = [record(store, f"result-{number}") for number in range(len(plans))]
        for lock in ("living", "other", "dead"):
            path = Path(folder, f"{lock}.lock")
            path.write_text("{}")
            needed = {one.step: one for one, (_, locks, _) in zip(made, plans, strict=True) if lock in locks}
            note_root(store, lock=path, spec=path, family=lock, records=needed, sources=(), steps=list(needed))
        Path(folder, "dead.lock").unlink()
        for one, (age, _, pinned) in zip(made, plans, strict=True):
            if pinned:
                pin(store, Pin(one.output, one.step))
            os.utime(store.layout.object(one.output), (now - age, now - age))
        collect(store, delete=True, now=now)
        for one, (age, locks, pinned) in zip(made, plans, strict=True):
            stays = bool(locks & {"living", "other"}) or pinned or age < LEASE
            assert (store.verify(one.output) is None) == stays
            assert (one.output in here(store)) == stays
