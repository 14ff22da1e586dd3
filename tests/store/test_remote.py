"""What one machine pushes another fetches, byte for byte; what is there is neither sent again nor replaced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.progress import Progress, silent
from colbuild.store import open_store
from colbuild.store.layout import Layout
from colbuild.store.remote.remote_push import push
from colbuild.store.remote.remote_store import (
    Pushed,
    RemoteError,
    action_path,
    check,
    fetch,
    look,
    object_path,
    open_remote,
)
from tests.store.remotes import (
    FILES,
    Fault,
    contents,
    faulty,
    finished,
    key_named,
    memory_remote,
    spoil,
)  # fmt: skip

SIZE = sum(len(content) for content in FILES.values())


@pytest.fixture(params=["memory", "file"])
def remote(request, tmp_path):
    url = memory_remote() if request.param == "memory" else (tmp_path / "remote").as_uri()
    return open_remote(url, pauses=(0.0,))


def leftovers(store):
    return list((store.root / "tmp").iterdir())


def test_fetched_result_is_the_pushed_one(remote, store, other):
    record = finished(store)
    assert push(remote, store, [record], silent) == Pushed(objects=1, bytes=SIZE, records=1)
    got = fetch(remote, other, record.key, silent)
    assert got == other.lookup(record.key)
    assert contents(other, got) == FILES
    assert other.verify(got.output) is None
    assert leftovers(other) == []


def test_fetched_record_is_no_run_of_this_machine(remote, store, other):
    record = replace(finished(store), built_at=9e9)
    push(remote, store, [record], silent)
    got = fetch(remote, other, record.key, silent)
    assert got.seconds == 0, "plan/cost/estimate.py counts runs of more than 0 seconds only"
    assert got.built_at < 9e9, "nothing was built in the future"
    assert replace(got, seconds=record.seconds, built_at=record.built_at) == record


def test_unknown_action_is_a_miss(remote, other):
    assert not check(remote)
    assert look(remote, key_named("nobody")) is None
    assert fetch(remote, other, key_named("nobody"), silent) is None


@pytest.mark.parametrize("lost", ["tree.json", "files/model.safetensors"])
def test_missing_blob_is_a_miss_and_the_next_push_heals_it(remote, store, other, lost):
    record = finished(store)
    push(remote, store, [record], silent)
    remote.files.fs.rm_file(f"{remote.files.base}/{object_path(record.output)}/{lost}")
    assert fetch(remote, other, record.key, silent) is None
    assert other.lookup(record.key) is None
    assert leftovers(other) == []
    again = push(remote, store, [record], silent)
    assert (again.objects, again.records) == (1, 0)
    assert contents(other, fetch(remote, other, record.key, silent)) == FILES


def test_second_push_sends_nothing(remote, store, tmp_path):
    record = finished(store)
    push(remote, store, [record], silent)
    before = remote.files.sizes("")
    assert push(remote, store, [record], silent) == Pushed(skipped=1)
    assert remote.files.sizes("") == before


def test_files_come_before_their_list_and_the_list_before_the_record(store):
    remote = faulty(open_remote(memory_remote()), Fault())
    written = []
    moved = remote.files.fs.mv
    remote.files.fs.mv = lambda draft, target: (written.append(target), moved(draft, target))
    record = finished(store)
    push(remote, store, [record], silent)
    names = [path.removeprefix(remote.files.base + "/") for path in written]
    assert names[0] == "format"
    assert names[-2:] == [f"{object_path(record.output)}/tree.json", action_path(record.key)]
    assert {name.rpartition("/files/")[2] for name in names[1:-2]} == set(FILES)


def test_other_result_of_the_same_action_stays_as_it_is(remote, store, other):
    first, second = finished(store), finished(other, {"model.safetensors": b"another"})
    push(remote, store, [first], silent)
    assert push(remote, other, [second], silent) == Pushed(differing=(second.step,))
    assert look(remote, first.key).output == first.output


def test_record_that_nobody_can_use_is_replaced(remote, store):
    record = finished(store)
    push(remote, store, [record], silent)
    spoil(remote, action_path(record.key), b'{"key": "trunc')
    assert push(remote, store, [record], silent) == Pushed(skipped=1, records=1)
    assert look(remote, record.key).output == record.output


@pytest.mark.parametrize("change", [b"WEIGHTS" * 100, b"weights" * 99, b"weights" * 101], ids=["bits", "short", "long"])
def test_damaged_result_is_never_pushed(remote, store, change):
    record, sound = finished(store), finished(store, {"sound": b"1"}, "sound")
    path = store.files(record.output) / "model.safetensors"
    path.chmod(0o644)
    path.write_bytes(change)
    pushed = push(remote, store, [record, sound], silent)
    assert pushed.damaged == (f"{record.step}: the content of model.safetensors has changed",)
    assert look(remote, record.key) is None
    assert "files/model.safetensors" not in remote.files.sizes(object_path(record.output))
    assert look(remote, sound.key) is not None, "the others are pushed all the same"


def test_result_that_is_here_for_another_reason_is_not_fetched_again(store, other):
    fault = Fault()
    remote = faulty(open_remote(memory_remote()), fault)
    record = finished(store)
    push(remote, store, [record], silent)
    finished(other, FILES, "another action")
    fault.calls.clear()
    assert fetch(remote, other, record.key, silent).output == record.output
    assert fault.calls == [f"cat_file {record.key}.json"]


def test_progress_counts_every_byte(remote, store, other):
    record = finished(store)
    told: list[Progress] = []
    push(remote, store, [record], told.append)
    assert {(one.total, one.unit, one.phase) for one in told} == {(SIZE, "bytes", "pushing")}
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert told[-1].done == SIZE
    told.clear()
    fetch(remote, other, record.key, told.append)
    assert told[-1] == Progress(SIZE, SIZE, "bytes", "fetching")


def test_copy_of_a_remote_is_a_store(store, tmp_path):
    remote = open_remote((tmp_path / "remote").as_uri())
    record = finished(store)
    push(remote, store, [record], silent)
    assert open_store(tmp_path / "remote").lookup(record.key).output == record.output
    assert list((tmp_path / "remote" / "tmp").iterdir()) == []


def test_store_of_somebody_else_is_a_remote(store, other):
    record = finished(store)
    assert fetch(open_remote(store.root.as_uri()), other, record.key, silent).output == record.output


def test_remote_of_a_newer_colbuild_or_of_something_else_is_refused(remote, store):
    spoil(remote, "format", b"colbuild store 99\n")
    with pytest.raises(RemoteError, match="newer colbuild"):
        push(remote, store, [], silent)
    spoil(remote, "format", b"\x7fELF")
    with pytest.raises(RemoteError, match="is not a store"):
        check(remote)


def test_record_of_other_parameters_is_told_by_its_key(remote, store, other):
    record = finished(store)
    push(remote, store, [record], silent)
    with pytest.raises(RemoteError, match="do not match its key"):
        fetch(remote, other, record.key, silent, lambda found: key_named(found.op))
    assert fetch(remote, other, record.key, silent, lambda found: found.key) is not None


NAMES = st.text("abcXYZ0189._- äß[*]#%+~", min_size=1, max_size=8).filter(lambda name: name.strip(".") and name.strip())


@settings(max_examples=25, deadline=None)
@given(
    files=st.dictionaries(NAMES, st.binary(max_size=300), min_size=1, max_size=5),
    protocol=st.sampled_from(["memory", "file"]),
)
def test_any_result_arrives_as_it_was(files, protocol, tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("any")
    store, other = open_store(folder / "store"), open_store(folder / "other")
    other.prepare()
    remote = open_remote(memory_remote() if protocol == "memory" else (folder / "remote").as_uri())
    record = finished(store, files)
    push(remote, store, [record], silent)
    assert contents(other, fetch(remote, other, record.key, silent)) == files


def test_layout_is_the_local_one(store):
    record = finished(store)
    layout = Layout(Path("/"))
    assert Path("/", object_path(record.output)) == layout.object(record.output)
    assert Path("/", action_path(record.key)) == layout.action(record.key)


def test_record_goes_out_as_the_store_wrote_it(remote, store):
    record = finished(store)
    push(remote, store, [record], silent)
    sent = remote.files.read(action_path(record.key), 10_000)
    assert sent == store.layout.action(record.key).read_bytes()
    assert json.loads(sent)["seconds"] == record.seconds
