"""A real S3 server on this machine: pushed to, fetched from, behind a line that stalls and breaks off."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
from rich.console import Console

from colbuild.progress import silent
from colbuild.report.screen.cache_view import print_pushed
from colbuild.store import open_store
from colbuild.store.remote.remote_files import READ_BLOCK, WRITE_BLOCK
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
from tests.store.remotes import FILES, clear_connections, contents, finished, key_named, s3_server, spoil

pytest.importorskip("moto")
pytest.importorskip("s3fs")

# Larger than two parts of an upload, and no multiple of any block.
WEIGHTS = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range((2 * WRITE_BLOCK >> 5) + 1000)) + b"end"
LARGE = {**FILES, "model.safetensors": WEIGHTS}


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(server, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    clear_connections()
    yield server
    clear_connections()


@pytest.fixture
def remote(endpoint, request):
    remote = open_remote(f"s3://bucket-{key_named(request.node.name)[:20]}/some/folder", pauses=(0.0,))
    remote.files.fs.mkdir(remote.files.base.partition("/")[0])
    return remote


def uploads(remote):
    """What was begun to be sent and neither completed nor given up."""
    return remote.files.fs.call_s3("list_multipart_uploads", Bucket=remote.files.base.partition("/")[0]).get("Uploads")


def test_fetched_result_is_the_pushed_one(remote, store, other):
    record = finished(store, LARGE)
    assert not check(remote)
    size = sum(len(content) for content in LARGE.values())
    assert push(remote, store, [record], silent) == Pushed(objects=1, bytes=size, records=1)
    assert check(remote)
    got = fetch(remote, other, record.key, silent)
    assert contents(other, got) == LARGE
    assert other.lookup(record.key) == got
    assert not uploads(remote)


def test_second_push_sends_nothing(remote, store):
    record = finished(store)
    push(remote, store, [record], silent)
    before = remote.files.fs.find(remote.files.base, detail=True)
    assert push(remote, store, [record], silent) == Pushed(skipped=1)
    after = remote.files.fs.find(remote.files.base, detail=True)
    assert {path: info["LastModified"] for path, info in after.items()} == {
        path: info["LastModified"] for path, info in before.items()
    }


def test_unknown_action_is_a_miss_and_a_missing_blob_is_healed(remote, store, other):
    assert look(remote, key_named("nobody")) is None
    record = finished(store)
    push(remote, store, [record], silent)
    remote.files.fs.rm_file(f"{remote.files.base}/{object_path(record.output)}/files/model.safetensors")
    assert fetch(remote, other, record.key, silent) is None
    assert push(remote, store, [record], silent) == Pushed(objects=1, bytes=700)
    assert contents(other, fetch(remote, other, record.key, silent)) == FILES


def test_missing_bucket_is_a_miss_to_read_and_an_error_to_push_to(endpoint, store, other):
    remote = open_remote("s3://no-such-bucket/folder", pauses=())
    assert fetch(remote, other, key_named("k"), silent) is None
    with pytest.raises(RemoteError, match="in a bucket that does not exist"):
        push(remote, store, [finished(store)], silent)


def test_server_decides_between_two_who_put_a_record_at_once(remote):
    wins = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        wins.append(remote.files.create("actions/aa/x.json", b"%d" % number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == [False] * 7 + [True]


def test_two_pushes_of_different_results_for_one_key_have_one_winner_and_a_message(remote, store, other, tmp_path):
    """A step that is not deterministic, on two machines: the first result stays, and the second machine is told."""
    mine, theirs = finished(store), finished(other, {"model.safetensors": b"other weights"})
    assert mine.key == theirs.key and mine.output != theirs.output
    assert push(remote, store, [mine], silent) == Pushed(objects=1, bytes=mine.size, records=1)
    pushed = push(remote, other, [theirs], silent)
    assert pushed == Pushed(differing=(theirs.step,))
    told = Console(file=StringIO(), width=200)
    print_pushed(pushed, remote.name, told)
    assert f"{theirs.step}: the remote has another result, which stays" in told.file.getvalue()
    third = open_store(tmp_path / "third")
    third.prepare()
    assert contents(third, fetch(remote, third, mine.key, silent)) == FILES
    # What the second machine made is its own result all the same.
    assert other.lookup(theirs.key).output == theirs.output


def test_pushes_of_different_results_at_once_have_one_winner(remote, tmp_path):
    stores = [open_store(tmp_path / f"{number}") for number in range(4)]
    records = [finished(one, {"word": b"%d" % number}) for number, one in enumerate(stores)]
    start = threading.Barrier(len(stores))

    def work(number: int) -> Pushed:
        start.wait()
        return push(remote, stores[number], [records[number]], silent)

    with ThreadPoolExecutor(len(stores)) as pool:
        pushed = list(pool.map(work, range(len(stores))))
    assert sorted(one.records for one in pushed) == [0, 0, 0, 1]
    assert sorted(one.differing for one in pushed) == [(), *[(records[0].step,)] * 3]
    winner = next(number for number, one in enumerate(pushed) if one.records)
    assert look(remote, records[0].key).output == records[winner].output


def test_damaged_large_file_is_not_completed(remote, store):
    record = finished(store, LARGE)
    path = store.files(record.output) / "model.safetensors"
    path.chmod(0o644)
    path.write_bytes(WEIGHTS[:-1] + b"X")
    assert push(remote, store, [record], silent).damaged
    assert "files/model.safetensors" not in remote.files.sizes(object_path(record.output))
    assert look(remote, record.key) is None
    assert not uploads(remote)


@pytest.mark.parametrize(
    "content", [WEIGHTS[:-1] + b"X", WEIGHTS[:-1], WEIGHTS + b"X", b""], ids=["bits", "short", "long", "empty"]
)
def test_wrong_content_is_rejected(remote, store, other, content):
    record = finished(store, LARGE)
    push(remote, store, [record], silent)
    spoil(remote, f"{object_path(record.output)}/files/model.safetensors", content)
    with pytest.raises(RemoteError):
        fetch(remote, other, record.key, silent)
    assert other.lookup(record.key) is None
    assert list((other.root / "tmp").iterdir()) == []


def test_empty_record_is_rejected_and_replaced_by_the_next_push(remote, store):
    record = finished(store)
    push(remote, store, [record], silent)
    spoil(remote, action_path(record.key), b"")
    with pytest.raises(RejectedError, match="not JSON"):
        look(remote, record.key)
    assert push(remote, store, [record], silent).records == 1
    assert look(remote, record.key).output == record.output


class Line:
    """A line to a server that lets a number of bytes of the answers through, then breaks off or falls silent."""

    def __init__(self, endpoint: str, lets: int, *, breaks: bool, mends: int = 10**9) -> None:
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self.server, self.lets, self.breaks, self.mends = (host, int(port)), lets, breaks, mends
        self.faults = 0
        self.over = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.server)
            threading.Thread(target=self._pass, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, self.lets), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, left: int | None) -> None:
        try:
            while data := source.recv(1 << 16):
                if left is not None and self.faults < self.mends:
                    if len(data) > left:
                        self.faults += 1
                        target.sendall(data[:left])
                        if not self.breaks:
                            self.over.wait(30)
                        return
                    left -= len(data)
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
                finally:
                    end.close()

    def close(self) -> None:
        self.over.set()
        self.listener.close()


@pytest.fixture
def line(endpoint, monkeypatch):
    opened = []

    def lay(remote, lets, *, breaks, mends=10**9, timeout=20.0):
        opened.append(Line(endpoint, lets, breaks=breaks, mends=mends))
        monkeypatch.setenv("AWS_ENDPOINT_URL", opened[-1].endpoint)
        clear_connections()
        return open_remote(remote.name, timeout=timeout, pauses=()), opened[-1]

    yield lay
    for one in opened:
        one.close()


def test_line_cut_in_the_middle_of_a_file_is_given_up(remote, store, other, line):
    record = finished(store, LARGE)
    push(remote, store, [record], silent)
    cut, _ = line(remote, READ_BLOCK // 2, breaks=True)
    assert look(cut, record.key) is not None
    with pytest.raises(RemoteError, match="cannot read objects/"):
        fetch(cut, other, record.key, silent)
    assert other.lookup(record.key) is None
    assert list((other.root / "tmp").iterdir()) == []
    assert other.lookup(finished(other, LARGE, "k").key).output == record.output, "it is built here instead"


def test_line_cut_once_is_taken_up_again(remote, store, other, line):
    record = finished(store, LARGE)
    push(remote, store, [record], silent)
    cut, laid = line(remote, READ_BLOCK // 2, breaks=True, mends=2)
    assert contents(other, fetch(cut, other, record.key, silent)) == LARGE
    assert laid.faults >= 1


def test_line_that_falls_silent_is_given_up_in_time(remote, store, other, line):
    record = finished(store, LARGE)
    push(remote, store, [record], silent)
    silent_line, _ = line(remote, READ_BLOCK // 2, breaks=False, timeout=0.5)
    began = time.monotonic()
    with pytest.raises(RemoteError, match=r"no data arrived for 0\.5 seconds"):
        fetch(silent_line, other, record.key, silent)
    assert time.monotonic() - began < 10
    assert list((other.root / "tmp").iterdir()) == []


def test_push_over_a_silent_line_leaves_no_record(remote, store, line):
    record = finished(store, LARGE)
    silent_line, _ = line(remote, 0, breaks=False, timeout=0.5)
    with pytest.raises(RemoteError, match="no data arrived for"):
        push(silent_line, store, [record], silent)
    assert look(remote, record.key) is None


def test_server_that_is_down_is_told(remote, other, line):
    down, laid = line(remote, 0, breaks=True, timeout=1.0)
    laid.close()
    with pytest.raises(RemoteError, match="cannot read actions/"):
        fetch(down, other, key_named("k"), silent)
