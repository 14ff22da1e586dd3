"""Fault 5: a remote that is slow, breaks off or lies. What it gave is rejected, and whoever asked goes on without it."""

from __future__ import annotations

import threading
import time

import pytest

from colbuild.errors import BuildError
from colbuild.progress import silent
from colbuild.store import open_store
from colbuild.store.remote.remote_files import READ_BLOCK
from colbuild.store.remote.remote_push import push
from colbuild.store.remote.remote_store import (
    Pushed,
    RejectedError,
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
    row,
    spoil,
    stalling,
)  # fmt: skip

LARGE = {**FILES, "model.safetensors": bytes(range(256)) * (2 * READ_BLOCK // 256) + b"end"}


@pytest.fixture
def remote():
    return open_remote(memory_remote(), pauses=(0.0, 0.0))


@pytest.fixture
def record(remote, tmp_path):
    store = open_store(tmp_path / "theirs")
    record = finished(store, LARGE)
    push(remote, store, [record], silent)
    return record


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "store")
    store.prepare()
    return store


def goes_on(store, record):
    """Nothing of what came is in the store, and the step can be built here as if there were no remote."""
    assert list((store.root / "objects").iterdir()) == []
    assert list((store.root / "actions").iterdir()) == []
    assert list((store.root / "tmp").iterdir()) == []
    assert store.lookup(record.key) is None
    assert store.lookup(finished(store, LARGE, "k").key).output == record.output


WEIGHTS = LARGE["model.safetensors"]
LIES = {
    "a flipped bit": (bytes([WEIGHTS[0] ^ 1]) + WEIGHTS[1:], "its content does not match its digest"),
    "a flipped bit at the end": (WEIGHTS[:-1] + b"D", "its content does not match its digest"),
    "shorter": (WEIGHTS[:-1], "ends after 8,388,610 of 8,388,611 bytes"),
    "cut to a block": (WEIGHTS[:READ_BLOCK], "ends after 4,194,304 of 8,388,611 bytes"),
    "empty": (b"", "ends after 0 of 8,388,611 bytes"),
    "longer": (WEIGHTS + b"x", "has more than its 8,388,611 bytes"),
    "much longer": (WEIGHTS * 2, "has more than its 8,388,611 bytes"),
}


@pytest.mark.parametrize("lie", LIES)
def test_wrong_content_is_rejected(remote, record, store, lie):
    content, said = LIES[lie]
    spoil(remote, f"{object_path(record.output)}/files/model.safetensors", content)
    with pytest.raises(RejectedError) as caught:
        fetch(remote, store, record.key, silent)
    assert said in caught.value.message
    assert remote.name in caught.value.message
    goes_on(store, record)


def test_more_bytes_than_the_list_says_are_not_even_asked_for(remote, record, store):
    fault = Fault()
    spoil(remote, f"{object_path(record.output)}/files/sub/config.json", b"{}" * READ_BLOCK)
    line = faulty(remote, fault)
    asked = []
    cat = line.files.fs.cat_file
    line.files.fs.cat_file = lambda path, start=None, end=None: asked.append(end) or cat(path, start=start, end=end)
    with pytest.raises(RejectedError, match="more than its 2 bytes"):
        fetch(line, store, record.key, silent)
    assert asked[-1] == 3


def test_list_of_files_of_another_result_is_rejected(remote, record, store, tmp_path):
    theirs = finished(open_store(tmp_path / "theirs"), {"other": b"1"}, "other")
    push(remote, open_store(tmp_path / "theirs"), [theirs], silent)
    listed = remote.files.read(f"{object_path(theirs.output)}/tree.json", 10_000)
    spoil(remote, f"{object_path(record.output)}/tree.json", listed)
    with pytest.raises(RejectedError, match="belongs to another result"):
        fetch(remote, store, record.key, silent)
    goes_on(store, record)


def test_record_of_another_action_is_rejected(remote, record, store, tmp_path):
    theirs = finished(open_store(tmp_path / "theirs"), {"other": b"1"}, "other")
    push(remote, open_store(tmp_path / "theirs"), [theirs], silent)
    spoil(remote, action_path(record.key), remote.files.read(action_path(theirs.key), 10_000))
    with pytest.raises(RejectedError, match="the record of another key"):
        fetch(remote, store, record.key, silent)
    goes_on(store, record)


@pytest.mark.parametrize("name", ["record", "list"])
def test_endless_record_or_list_is_not_read_to_its_end(remote, record, store, name):
    path = action_path(record.key) if name == "record" else f"{object_path(record.output)}/tree.json"
    spoil(remote, path, b"[" * (17 << 20))
    with pytest.raises(RejectedError, match="is larger than"):
        fetch(remote, store, record.key, silent)
    goes_on(store, record)


def test_result_larger_than_the_disk_is_not_begun(remote, store):
    from tests.store.remotes import forge

    key = forge(remote, [{**row("model"), "size": 1 << 43}])
    with pytest.raises(RejectedError, match="the store has"):
        fetch(remote, store, key, silent)


@pytest.mark.parametrize("at", ["k.json", "tree.json", "model.safetensors"])
def test_hung_remote_is_given_up(remote, record, store, at):
    fault, over = stalling(f"{record.key}.json" if at == "k.json" else at)
    began = time.monotonic()
    try:
        with pytest.raises(RemoteError, match=r"no data arrived for 0\.2 seconds"):
            fetch(faulty(remote, fault, timeout=0.2), store, record.key, silent)
        assert time.monotonic() - began < 10
        goes_on(store, record)
    finally:
        over.set()


def test_hung_remote_is_given_up_by_a_push(remote, store):
    fault, over = stalling("tree.json")
    record = finished(store)
    line = faulty(remote, fault, timeout=0.2)
    moved = line.files.fs.mv

    def move(draft, target):
        if target.endswith("tree.json"):
            over.wait(30)
        moved(draft, target)

    line.files.fs.mv = move
    try:
        with pytest.raises(RemoteError, match="no data arrived for"):
            push(line, store, [record], silent)
    finally:
        over.set()
    assert look(remote, record.key) is None, "a record without its result would be a lie"
    assert push(remote, store, [record], silent).records == 1


def test_line_that_always_breaks_off_is_given_up_after_three_attempts(remote, record, store):
    def strike(_, path):
        if path.endswith("model.safetensors"):
            raise ConnectionResetError("connection reset by peer")

    fault = Fault(strike)
    with pytest.raises(RemoteError, match=r"cannot read objects/.*: connection reset by peer"):
        fetch(faulty(remote, fault), store, record.key, silent)
    assert fault.calls.count("cat_file model.safetensors") == 3
    goes_on(store, record)


def test_line_that_breaks_off_now_and_then_is_tried_again(remote, record, store, tmp_path):
    struck = set()

    def strike(method, path):
        if (method, path) not in struck:
            struck.add((method, path))
            raise TimeoutError("timed out")

    fault = Fault(strike)
    line = faulty(remote, fault)
    assert contents(store, fetch(line, store, record.key, silent)) == LARGE
    mine = finished(store, {"mine": b"1" * 100}, "mine")
    assert push(line, store, [mine], silent) == Pushed(objects=1, bytes=100, records=1)
    assert look(remote, mine.key).output == mine.output


def test_refusal_is_not_tried_again(remote, record, store):
    def refuse(_, path):
        raise PermissionError(13, "Permission denied", path)

    fault = Fault(refuse)
    with pytest.raises(RemoteError, match="permission denied"):
        fetch(faulty(remote, fault), store, record.key, silent)
    assert len(fault.calls) == 1


def test_what_a_remote_says_moves_no_cursor(remote, store):
    def strike(_, __):
        raise OSError("\x1b[2Jgone\r\n" + "x" * 5000)

    with pytest.raises(RemoteError) as caught:
        check(faulty(remote, Fault(strike)))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


def test_stop_in_the_middle_of_a_fetch_leaves_nothing(remote, record, store):
    def stop(_):
        raise BuildError("stopped")

    with pytest.raises(BuildError, match="stopped"):
        fetch(remote, store, record.key, stop)
    goes_on(store, record)


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_eight_who_push_at_once_leave_one_whole_remote(protocol, tmp_path):
    url = memory_remote() if protocol == "memory" else (tmp_path / "remote").as_uri()
    shared = {"model.safetensors": b"same" * 200_000, "config.json": b"{}"}
    stores = [open_store(tmp_path / f"store{number}") for number in range(8)]
    records = [
        [finished(store, shared, "shared"), finished(store, {"own": b"%d" % number}, "disputed")]
        for number, store in enumerate(stores)
    ]
    results: list[Pushed] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        results.append(push(open_remote(url), stores[number], records[number], silent))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    remote, reader = open_remote(url), open_store(tmp_path / "reader")
    reader.prepare()
    assert contents(reader, fetch(remote, reader, key_named("shared"), silent)) == shared
    winner = fetch(remote, reader, key_named("disputed"), silent)
    assert winner.output in {pair[1].output for pair in records}
    if protocol == "file":
        # Memory has no way to put a file only where there is none.
        assert sum(len(result.differing) for result in results) == 7
        assert sum(result.records for result in results) == 2
    assert list(remote.files.sizes("tmp")) == []
