"""Registries that answer with something else, without end, or not at all: one message, and soon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from colbuild.arriving import Bound
from colbuild.errors import BuildError
from colbuild.export.package import registry
from colbuild.progress import silent
from tests.fuzz.mutate import deep_json
from tests.ops.source.servers import Quiet, serving

pytest.importorskip("oras")


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file that stands for a package: what a registry answers does not depend on it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").write_bytes(b"x")
    layer = {
        "mediaType": "application/json",
        "size": 1,
        "digest": "sha256:" + "0" * 64,
        "annotations": {registry._NAME: "x"},
    }
    monkeypatch.setattr(registry, "read_manifest", lambda _: None)
    monkeypatch.setattr(registry, "_layers", lambda *_: [(tmp_path / "x", layer)])


def pushed(answer: Callable[[Quiet], None], tmp_path: Path) -> str:
    class Answer(Quiet):
        def do_GET(self) -> None:  # noqa: N802
            try:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer(self)
            except OSError:
                self.close_connection = True

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    began = time.monotonic()
    with serving(Answer) as address, pytest.raises(BuildError) as caught:
        registry.push_package(tmp_path, f"{address.removeprefix('http://')}/acme/phone:1.0", silent)
    assert time.monotonic() - began < 10
    return caught.value.message


LOGIN = {"WWW-Authenticate": 'Bearer realm="x",service="y",scope="z"'}


@pytest.mark.parametrize("status", [200, 202, 401, 500])
@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"<html>log in</html>", deep_json(50_000), b"[]", b"null", b'{"errors": {}}', b'{"errors": [3]}',
     b'{"errors": [{"message": {"a": []}}]}', b'{"token": 3}'],
    ids=range(10),
)  # fmt: skip
def test_answers_of_any_kind(status: int, body: bytes, tmp_path: Path) -> None:
    for headers in (
        {},
        LOGIN,
        {"Location": "file:///etc/hostname"},
        {"Location": "http://["},
        {"Retry-After": "99999"},
    ):
        assert "the registry of" in pushed(lambda answer: answer.send(status, body, headers), tmp_path)  # noqa: B023


def test_an_endless_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colbuild.bounded_requests.BoundedAdapter.__init__.__defaults__", (Bound(100_000, "x"), None))

    def endless(answer: Quiet) -> None:
        answer.send_response(401)
        answer.send_header("Transfer-Encoding", "chunked")
        answer.end_headers()
        for _ in range(10_000 if answer.command != "HEAD" else 0):
            answer.wfile.write(b"%x\r\n%s\r\n" % (65536, b" " * 65536))

    def respond(answer: Quiet) -> None:
        answer.send(404) if answer.command == "HEAD" else endless(answer)

    assert "larger than 100 kB" in pushed(respond, tmp_path)


def test_a_silent_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY_SECONDS", 0.2)
    assert "timed out" in pushed(lambda answer: time.sleep(1), tmp_path).lower()


def test_the_digest_is_one_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer(Quiet):
        def do_HEAD(self) -> None:  # noqa: N802
            self.send(200)

        def do_PUT(self) -> None:  # noqa: N802
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(201, json.dumps({}).encode(), {"Docker-Content-Digest": "evil"})

    monkeypatch.setattr(registry, "_told", lambda *_: {"schemaVersion": 2, "config": {}, "layers": []})
    with serving(Answer) as address:
        pushed = registry.push_package(tmp_path, f"{address.removeprefix('http://')}/acme/phone:1.0", silent)
    assert pushed.digest == ""
