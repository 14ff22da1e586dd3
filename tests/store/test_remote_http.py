"""A remote behind http: fetched from, where the server gives parts of files; one that sends without end is given up."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest

from colbuild.progress import silent
from colbuild.store.remote.remote_push import push
from colbuild.store.remote.remote_store import RemoteError, check, fetch, look, open_remote
from tests.ops.source.servers import Quiet, serving
from tests.store.remotes import FILES, contents, finished, key_named

pytest.importorskip("aiohttp")


def folder_of(root: Path) -> type[Quiet]:
    class Answer(Quiet):
        def do_GET(self) -> None:  # noqa: N802
            path = root / self.path.lstrip("/")
            if not path.is_file():
                self.send(404)
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            content = path.read_bytes()
            if asked is None:
                self.send(200, content)
            elif int(asked[1]) >= len(content):
                self.send(416)
            else:
                self.send(206, content[int(asked[1]) : int(asked[2]) + 1])

        do_HEAD = do_GET  # noqa: N815

    return Answer


def test_a_pushed_result_is_fetched_over_http(store, other, tmp_path):
    record = finished(store, {name: content for name, content in FILES.items() if content})
    push(open_remote(f"file://{tmp_path}/remote"), store, [record], silent)
    with serving(folder_of(tmp_path / "remote")) as address:
        remote = open_remote(address + "/", pauses=())
        assert check(remote)
        assert look(remote, key_named("nobody")) is None
        got = fetch(remote, other, record.key, silent)
    assert got is not None and contents(other, got)["model.safetensors"] == FILES["model.safetensors"]


@pytest.mark.parametrize("encoding", ["identity", "deflate"])
def test_a_server_that_sends_without_end_is_given_up(other, encoding):
    block = zlib.compress(b" " * 50_000_000) if encoding == "deflate" else b" " * (1 << 20)

    class Endless(Quiet):
        def do_GET(self) -> None:  # noqa: N802
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Content-Encoding", encoding)
            self.end_headers()
            try:
                for _ in range(1 if encoding == "deflate" else 1000):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True

    with serving(Endless) as address:
        remote = open_remote(address + "/", pauses=())
        with pytest.raises(RemoteError, match=r"more than 20\.0 MB, the limit of one request|not JSON"):
            look(remote, key_named("k"))
