"""Servers that send without end, lie, stall, or answer with something else: each ends in one error of one kind."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import huggingface_hub.constants
import pytest

from colbuild.arriving import Bound, BoundError, Meter
from colbuild.bounds import SLOW_BYTES, SLOW_SECONDS
from colbuild.errors import EXIT_SOURCE_UNAVAILABLE, SourceUnavailableError
from colbuild.fetch.fetching import fetch
from colbuild.fetch.index.html_links import read_links
from tests.ops.source.hostile import (
    COMMIT,
    JSON_TYPE,
    PEP691,
    SDIST,
    TARS,
    WHEEL,
    ZIPS,
    X,
    header,
    odd_listings,
    odd_pages,
    tar,
)  # fmt: skip
from tests.ops.source.servers import Quiet, serving

pytestmark = pytest.mark.usefixtures("alone")

URI = "pypi://my-model==1.0/my_model/x.gguf"
HUB = "hf://org/tiny@v1/x.gguf"
SMALL = Bound(100_000, "the most in this test")

Respond = Callable[[Quiet, str], None]


@contextmanager
def answering(respond: Respond) -> Iterator[str]:
    class Answer(Quiet):
        def do_GET(self) -> None:  # noqa: N802
            try:
                respond(self, unquote(self.path.partition("?")[0]))
            except OSError:  # whoever is given up on
                self.close_connection = True

        do_HEAD = do_GET  # noqa: N815

    with serving(Answer) as address:
        yield address


def endless(answer: Quiet, headers: dict[str, str] | None = None, block: bytes = b" " * 65536) -> None:
    answer.send_response(200)
    for name, value in {"Transfer-Encoding": "chunked", **(headers or {})}.items():
        answer.send_header(name, value)
    answer.end_headers()
    for _ in range(10_000):
        answer.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))


def html(*links: str) -> bytes:
    return "".join(f"<a href='{link}'>{link.rpartition('/')[2].partition('#')[0]}</a>" for link in links).encode()


def refused(uri: str, downloads: Path) -> str:
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(uri, root=downloads.parent, downloads=downloads)
    assert caught.value.exit_code == EXIT_SOURCE_UNAVAILABLE
    assert not [path for path in downloads.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return caught.value.message


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Callable[[Respond], Any]:
    @contextmanager
    def serve(respond: Respond) -> Iterator[None]:
        with answering(respond) as address:
            monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple/")
            yield

    return serve


def offering(name: str, content: bytes) -> Respond:
    """An index with one archive."""

    def respond(answer: Quiet, path: str) -> None:
        answer.send(200, html(f"/files/{name}") if "/simple/" in path else content, {"Content-Type": "text/html"})

    return respond


# -- pages of an index ------------------------------------------------------------------------------------------------


def test_an_endless_page_is_given_up(index, downloads, monkeypatch) -> None:
    monkeypatch.setattr("colbuild.fetch.index.index_session.PAGE", SMALL)
    with index(lambda answer, _: endless(answer, {"Content-Type": "text/html"})):
        assert "it is larger than 100 kB, the most in this test" in refused(URI, downloads)


def test_a_page_that_unpacks_without_end_is_given_up(index, downloads, monkeypatch) -> None:
    monkeypatch.setattr("colbuild.fetch.index.index_session.PAGE", SMALL)
    packed = gzip.compress(b" " * 10_000_000)
    with index(lambda answer, _: answer.send(200, packed, {"Content-Encoding": "gzip", "Content-Type": "text/html"})):
        assert "larger than 100 kB" in refused(URI, downloads)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 500])
def test_compression_that_nobody_asked_for_is_refused(index, downloads, encoding: str) -> None:
    with index(lambda answer, _: answer.send(200, b"x", {"Content-Encoding": encoding})):
        assert "a compression that was not requested" in refused(URI, downloads)


def test_endless_answers_around_a_page_are_given_up(index, downloads, monkeypatch) -> None:
    monkeypatch.setattr("colbuild.bounded_requests.ANSWER", SMALL)
    with index(lambda answer, path: endless(answer, {"Location": path}) if 0 else _redirect(answer)):
        assert "larger than 100 kB" in refused(URI, downloads)


def _redirect(answer: Quiet) -> None:
    answer.send_response(302)
    answer.send_header("Location", "/elsewhere")
    answer.send_header("Transfer-Encoding", "chunked")
    answer.end_headers()
    for _ in range(10_000):
        answer.wfile.write(b"%x\r\n%s\r\n" % (65536, b" " * 65536))


def test_a_circle_of_redirects_is_told(index, downloads) -> None:
    with index(lambda answer, path: answer.send(302, b"", {"Location": path})):
        assert "it redirects more than 10 times" in refused(URI, downloads)


@pytest.mark.parametrize("address", ["file:///etc/hostname", "http://[", "ftp://host/x", "//", "http://\udcff"])
def test_a_redirect_that_leads_nowhere_is_told(index, downloads, address: str) -> None:
    with index(
        lambda answer, _: answer.send(
            302, b"", {"Location": address.encode("utf-8", "surrogateescape").decode("latin-1")}
        )
    ):
        refused(URI, downloads)


def test_a_server_says_to_try_again_in_a_year(index, downloads, monkeypatch) -> None:
    monkeypatch.setenv("PIP_RETRIES", "1")
    began = time.monotonic()
    with index(lambda answer, _: answer.send(503, b"", {"Retry-After": "31536000"})):
        assert "status 503" in refused(URI, downloads)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("link", ["file:///dev/zero", "/dev/zero", "ftp://host/x", "data:,x", "file:{}"])
def test_a_page_from_elsewhere_leads_to_no_file_of_this_machine(index, downloads, tmp_path, link: str) -> None:
    (tmp_path / WHEEL).write_bytes(b"secret")
    link = link.format(tmp_path / WHEEL)
    page = f'<a href="{link}">{WHEEL}</a>'.encode()
    with index(lambda answer, path: answer.send(200 if "simple" in path else 404, page, {"Content-Type": "text/html"})):
        message = refused(URI, downloads)
    assert "only a page of this machine may" in message or "status 404" in message


def test_a_page_of_this_machine_leads_to_no_device(downloads, monkeypatch, tmp_path) -> None:
    page = tmp_path / "links.html"
    page.write_text(f'<a href="file:///dev/zero">{WHEEL}</a>')
    monkeypatch.setenv("PIP_FIND_LINKS", page.as_uri())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert "/dev/zero, which is not a file" in refused(URI, downloads)


def test_special_files_as_places_and_settings_are_not_read(downloads, monkeypatch, tmp_path) -> None:
    os.mkfifo(tmp_path / WHEEL)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for place in (str(tmp_path), "/dev/zero", str(tmp_path / WHEEL)):
        monkeypatch.setenv("PIP_FIND_LINKS", place)
        refused(URI, downloads)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/zero")
    assert "/dev/zero cannot be read" in refused(URI, downloads)


def test_json_of_any_kind_is_one_kind_of_error(index, downloads) -> None:
    pages = list(odd_pages())
    waiting = iter(pages)

    def respond(answer: Quiet, path: str) -> None:
        answer.send(*((200, next(waiting)) if path.startswith("/simple/") else (404, b"")), JSON_TYPE)

    with index(respond):
        for _ in pages:
            refused(URI, downloads)


@pytest.mark.parametrize(
    "page",
    [
        "<a href=x>" * 200_000,
        "<!--" * 500_000,
        "<a '" * 300_000,
        '<a" ">' * 200_000,
        "<a href='" + "x" * 3_000_000,
        "<" * 2_000_000,
        f"<a href=x>{'y' * 3_000_000}</a>",
        f"<a href=x>my-model{'-a' * 100}.whl</a>" * 5_000,
    ],
    ids=range(8),
)  # fmt: skip
def test_no_page_takes_long(page: str) -> None:
    from colbuild.fetch.index.index_pages import _linked

    began = time.monotonic()
    try:
        _linked("my-model", page.encode(), "utf-8", "http://host/")
    except ValueError as error:
        assert str(error) == "no HTML"
    assert time.monotonic() - began < 4


def test_links_are_read_as_browsers_read_them() -> None:
    page = """<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.1"><base href="/b/"></head>
    <!-- <a href="no">no</a> --><A class=x data-requires-python=">=3.9" HREF='one.whl#sha256=1&amp;2' href="second">
      on<b>e</b>.whl </A>1 < 2<a href=two.whl>two&lt;.whl<a href="http://[">broken</a><a>none</a><a href="cut"""
    found = read_links(page, "http://host/a/", bool)
    assert [(link.text, link.url) for link in found] == [
        ("one.whl", "http://host/b/one.whl#sha256=1&2"),
        ("two<.whl", "http://host/b/two.whl"),
    ]
    with pytest.raises(ValueError, match="later format"):
        list(read_links('<meta name="pypi:repository-version" content="2.0">', "", bool))


# -- downloads and archives -------------------------------------------------------------------------------------------


def test_an_endless_archive_is_given_up(index, downloads, monkeypatch) -> None:
    monkeypatch.setattr("colbuild.bounded_requests._UNDECLARED", SMALL)

    def respond(answer: Quiet, path: str) -> None:
        if path.startswith("/simple/"):
            answer.send(200, html(f"/files/{WHEEL}"), {"Content-Type": "text/html"})
        else:
            endless(answer)

    with index(respond):
        assert f"{WHEEL} cannot be downloaded" in (message := refused(URI, downloads))
        assert "larger than 100 kB" in message


def test_an_archive_larger_than_its_index_or_the_disk_says_is_given_up(index, downloads) -> None:
    size: int | None = 10

    def respond(answer: Quiet, path: str) -> None:
        if path.startswith("/simple/"):
            file = {"filename": WHEEL, "url": f"/files/{WHEEL}", "hashes": {}, "size": size}
            answer.send(200, json.dumps({**PEP691, "files": [file]}).encode(), JSON_TYPE)
        elif size is None:
            answer.send(200, b"x", {"Content-Length": str(10**18)})
        else:
            answer.send(200, b"x" * 100)

    with index(respond):
        assert "larger than 10 B, the size that its index declares" in refused(URI, downloads)
        size = None
        assert "the free disk space" in refused(URI, downloads)


@pytest.mark.parametrize("kind", TARS)
def test_hostile_sdists_are_refused(kind: str, index, downloads, monkeypatch) -> None:
    monkeypatch.setattr("colbuild.fetch.unpacked.UNPACKED_BYTES", 1_000_000)
    monkeypatch.setattr("colbuild.fetch.unpacked.UNPACKED_RATIO", 2)
    content, says = TARS[kind]
    with index(offering(SDIST, content)):
        assert says in refused(f"pypi://my-model==1.0/{X}", downloads)


def test_many_members_are_refused(index, downloads, monkeypatch) -> None:
    monkeypatch.setattr("colbuild.fetch.archive_members.MEMBERS", 100)
    with index(offering(SDIST, header("a") * 200)):
        assert "more than 100 members" in refused(f"pypi://my-model==1.0/{X}", downloads)


@pytest.mark.parametrize("kind", ZIPS)
def test_hostile_wheels_are_refused(kind: str, index, downloads, monkeypatch) -> None:
    monkeypatch.setattr("colbuild.fetch.unpacked.UNPACKED_BYTES", 1_000_000)
    monkeypatch.setattr("colbuild.fetch.unpacked.UNPACKED_RATIO", 2)
    content, says = ZIPS[kind]
    with index(offering(WHEEL, content)):
        assert says in refused(URI, downloads)


def test_no_member_is_written_outside(index, downloads) -> None:
    content = tar(*((f"my_model-1.0/{name}", tarfile.REGTYPE, b"x") for name in ("../../../../evil", "a", "/etc/evil")))
    with index(offering(SDIST, content)):
        fetched = fetch("pypi://my-model==1.0/my_model-1.0#files=*", root=downloads.parent, downloads=downloads)
    assert [path.name for path in fetched.path.rglob("*")] == ["a"]
    assert not [*downloads.parent.rglob("*evil*")]


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("x" * 300, "a"), ("a\\..\\b", "a")])
def test_names_that_no_two_files_can_have_are_refused(names: tuple[str, ...], index, downloads) -> None:
    content = tar(*((f"my_model-1.0/{name}", tarfile.REGTYPE, b"x") for name in names))
    with index(offering(SDIST, content)):
        assert "cannot be unpacked" in refused("pypi://my-model==1.0/my_model-1.0#files=*", downloads)


def test_honest_archives_of_every_compression_are_read(index, downloads) -> None:
    plain = tar(("a", tarfile.REGTYPE, b"y" * 700), (f"./{X}", tarfile.REGTYPE, b"x" * 100_000))
    for suffix, pack in {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.items():
        with index(offering(SDIST + suffix, pack(plain))):
            fetched = fetch(f"pypi://my-model==1.0/{X}", root=downloads.parent, downloads=downloads / suffix)
        assert fetched.path.read_bytes() == b"x" * 100_000


# -- the hub ----------------------------------------------------------------------------------------------------------

FILES = {"x.gguf": b"x" * 1000}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)

    @contextmanager
    def serve(listing: bytes | Respond | None = None, file: Respond | None = None, **headers: str) -> Iterator[None]:
        def respond(answer: Quiet, path: str) -> None:
            if path.startswith("/api/"):
                if callable(listing):
                    listing(answer, path)
                    return
                told = {"sha": COMMIT, "siblings": [{"rfilename": n, "size": len(c)} for n, c in FILES.items()]}
                answer.send(200, json.dumps(told).encode() if listing is None else listing)
            elif file is not None and answer.command == "GET":
                file(answer, path)
            else:
                own = {"X-Repo-Commit": COMMIT, "ETag": '"e"', "X-Linked-Size": "1000", **headers}
                answer.send(200, FILES["x.gguf"], own)

        with answering(respond) as address:
            monkeypatch.setenv("HF_ENDPOINT", address)
            yield

    return serve


def test_an_endless_listing_is_given_up(hub, downloads, monkeypatch) -> None:
    monkeypatch.setattr("colbuild.fetch.hub.hub_client._LISTING", SMALL)
    with hub(listing=lambda answer, _: endless(answer)):
        assert "it is larger than 100 kB, the most in this test" in refused(HUB, downloads)


def test_a_listing_that_unpacks_without_end_is_not_unpacked(hub, downloads) -> None:
    with hub(listing=lambda answer, _: answer.send(200, b"x", {"Content-Encoding": "gzip"})):
        assert "a compression that was not requested" in refused(HUB, downloads)


def test_an_endless_error_of_a_hub_is_given_up(hub, downloads, monkeypatch) -> None:
    monkeypatch.setattr("colbuild.fetch.hub.hub_client._ANSWER", SMALL)

    def respond(answer: Quiet, _: str) -> None:
        answer.send_response_only = lambda code, message=None: Quiet.send_response_only(answer, 500)  # type: ignore[method-assign]
        endless(answer)

    with hub(listing=respond):
        assert "larger than 100 kB" in refused(HUB, downloads)


def test_a_file_larger_than_the_hub_says_is_given_up(hub, downloads) -> None:
    with hub(file=lambda answer, _: endless(answer)):
        assert "larger than 1.0 kB, the size of x.gguf that the hub declares" in refused(HUB, downloads)


def test_a_name_that_the_client_would_write_to_is_refused(hub, downloads) -> None:
    with hub(ETag='"/../../../../../evil"'):
        assert "header ETag is not a file name" in refused(HUB, downloads)


def test_a_hub_says_to_try_again_in_a_year(hub, downloads) -> None:
    began = time.monotonic()
    with hub(file=lambda answer, _: answer.send(429, b"", {"Retry-After": "31536000"})):
        assert "status 429" in refused(HUB, downloads)
    assert time.monotonic() - began < 60


def test_listings_of_any_kind_are_one_kind_of_error(hub, downloads) -> None:
    listings = list(odd_listings())
    waiting = iter(listings)
    with hub(listing=lambda answer, _: answer.send(200, next(waiting))):
        for listing in listings:
            assert refused(HUB, downloads), listing


def test_a_login_page_in_front_of_the_hub_is_told(hub, downloads) -> None:
    told = pytest.raises(SourceUnavailableError, match="the hub's answer is not a list of files")
    with hub(listing=b"<html>Welcome to the hotel</html>"), told as caught:
        fetch(HUB, root=downloads.parent, downloads=downloads)
    assert "login page" in (caught.value.hint or "")


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_transfer_that_stalls_is_given_up() -> None:
    now = 0.0
    meter = Meter(Bound(10**9, ""), lambda: now)
    for _ in range(100):
        meter.add(SLOW_BYTES)
        now += SLOW_SECONDS / 2
    with pytest.raises(BoundError, match="it stalls: less than 60 kB arrived in 60 s"):
        for _ in range(100):
            meter.add(1)
            now += SLOW_SECONDS / 2


def test_a_download_without_progress_is_given_up(index, downloads, monkeypatch) -> None:
    monkeypatch.setattr("colbuild.fetch.downloads.SILENT_SECONDS", 0.3)
    with index(lambda answer, _: time.sleep(2)):
        assert "no data arrived for 0.3 s" in refused(URI, downloads)


def test_the_first_bytes_may_take_their_time() -> None:
    assert (
        hashlib.sha256(b"".join(Meter(SMALL).counting(iter([b"a", b"b"])))).digest() == hashlib.sha256(b"ab").digest()
    )
