"""What arrives over a network: pages of an index, answers of a hub, whole HTTP answers, archives, and a remote cache."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import lzma
import os
import shutil
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.fuzz.frame import Driver
from tests.fuzz.mutate import mutated_bytes, mutated_json, mutated_value
from tests.ops.source import hostile
from tests.ops.source.hostile import COMMIT, SDIST, TARS, WHEEL, ZIPS

_MEMBER: Final = "pypi://my-model==1.0/my_model/x.gguf"
_FOLDER: Final = "pypi://my-model==1.0/my_model-1.0#files=*"
_MODEL: Final = "hf://org/tiny@v1/x.gguf"
_ARCHIVE: Final = hostile.wheel()
_DIGEST: Final = hashlib.sha256(_ARCHIVE).hexdigest()
_HTML: Final = (
    '<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0"><base href="/"></head><body>'
    f'<!-- a --><a href="../../files/{WHEEL}#sha256={_DIGEST}" data-requires-python="&gt;=3.9">{WHEEL}</a>'
    f"<a href='files/{SDIST}.gz'>{SDIST}.gz</a></body></html>"
)
_LISTING: Final = {"id": "org/tiny", "sha": COMMIT, "siblings": [{"rfilename": "x.gguf", "size": 9, "lfs": None}]}
_FILE_HEADERS: Final = f'X-Repo-Commit: {COMMIT}\r\nETag: "e"\r\n'


def _imports(_folder: Path) -> list[bytes]:
    import colbuild.fetch.hub.hub
    import colbuild.fetch.index.pypi  # noqa: F401

    with suppress(ImportError):
        from huggingface_hub.utils import _detect_agent

        # The client asks the real hub for a list of its own, once in a process.
        _detect_agent._registry = _detect_agent._EMPTY_REGISTRY
    return []


# -- whole answers, as bytes on a line --------------------------------------------------------------------------------


def _answer(body: bytes, headers: str = "", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode() + body


@contextmanager
def _line(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """A server that sends what the function says to the first bytes of each request, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
                with near:
                    near.sendall(answer(near.recv(1 << 16)))
                    near.shutdown(socket.SHUT_WR)
            except OSError:
                if listener.fileno() < 0:
                    return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def _fetch(uri: str, folder: Path, **settings: str) -> None:
    """Fetches a source as `build` does, with settings of nobody; only in a process of its own."""
    from huggingface_hub import constants

    from colbuild.fetch.fetching import fetch

    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        del os.environ[name]
    nobody = {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "2", "HF_TOKEN": "hf_nobody"}
    os.environ.update({**nobody, "NETRC": os.devnull, **settings})
    constants.HF_HUB_OFFLINE = False
    constants.HF_HUB_DOWNLOAD_TIMEOUT = constants.HF_HUB_ETAG_TIMEOUT = 2
    # The client waits seconds between its attempts, which is no matter here.
    for module in ("huggingface_hub.file_download", "huggingface_hub.utils._http"):
        __import__(module, fromlist=["time"]).time = _NoWait()
    fetch(uri, root=folder, downloads=folder / "downloads")


class _NoWait:
    """The module `time`, but nobody sleeps."""

    def __getattr__(self, name: str) -> Any:
        import time

        return (lambda _: None) if name == "sleep" else getattr(time, name)


def _try_index(_seeds: list[bytes], folder: Path) -> None:
    page = (folder / "page").read_bytes()
    with _line(lambda asked: page if b"/simple/" in asked[:40] else _answer(_ARCHIVE)) as address:
        _fetch(_MEMBER, folder, PIP_INDEX_URL=f"{address}/simple/")


def _try_hub(_seeds: list[bytes], folder: Path) -> None:
    parts = {name: (folder / name).read_bytes() for name in ("listing", "head", "file")}

    def answer(asked: bytes) -> bytes:
        kind = "head" if asked.startswith(b"HEAD") else "listing" if b"/api/" in asked[:40] else "file"
        return parts[kind]

    with _line(answer) as address:
        _fetch(_MODEL, folder, HF_ENDPOINT=address)


_PEP691_TYPE: Final = "Content-Type: application/vnd.pypi.simple.v1+json\r\n"
_HTML_TYPE: Final = "Content-Type: text/html; charset=utf-8\r\n"


def _make_page(_seeds: list[bytes], random: Random, folder: Path) -> None:
    if random.random() < 0.5:
        page = _answer(mutated_json(random, hostile.PEP691), _PEP691_TYPE)
    else:
        page = _answer(mutated_bytes(random, _HTML.encode()), _HTML_TYPE)
    (folder / "page").write_bytes(page)


def _make_listing(_seeds: list[bytes], random: Random, folder: Path) -> None:
    _hub_parts(folder, listing=_answer(mutated_json(random, _LISTING)))


def _hub_parts(folder: Path, **changed: bytes) -> None:
    parts = {
        "listing": _answer(json.dumps(_LISTING).encode()),
        "head": _answer(b"", f"{_FILE_HEADERS}X-Linked-Size: 9\r\n"),
        "file": _answer(b"123456789", _FILE_HEADERS),
    }
    for name, content in {**parts, **changed}.items():
        (folder / name).write_bytes(content)


_EXTRA: Final = (
    "Location: /elsewhere\r\n", "Location: file:///etc/hostname\r\n", "Location: http://[\r\n", "Content-Length: -1\r\n",
    "Content-Encoding: gzip\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 99999999999999999999\r\n",
    "Retry-After: 99999999\r\n", "X-Error-Code: RepoNotFound\r\n", 'ETag: "/../../../../outside/evil"\r\n',
    "X-Linked-Size: -5\r\n", "X-HF-Warning: \x1b[2J\r\n", "X: y\r\n" * 200, f"X: {'y' * 100_000}\r\n", "Set-Cookie: \xff\r\n",
    "Content-Type: text/html; charset=punycode\r\n", "Content-Type: \x00/\x00\r\n", "Link: <x>; rel=next\r\n",
)  # fmt: skip
_STATUS: Final = (
    "200 OK",
    "204 No",
    "206 Part",
    "301 M",
    "302 F",
    "304 N",
    "401 U",
    "404 N",
    "416 R",
    "429 T",
    "503 S",
    "999 ?",
)


def _mutated_answer(random: Random, body: bytes, headers: str) -> bytes:
    extra = "".join(random.choice(_EXTRA) for _ in range(random.choice((0, 1, 2))))
    whole = _answer(body, headers + extra, random.choice(_STATUS))
    return mutated_bytes(random, whole) if random.random() < 0.5 else whole


def _make_index_answer(_seeds: list[bytes], random: Random, folder: Path) -> None:
    (folder / "page").write_bytes(_mutated_answer(random, _HTML.encode(), _HTML_TYPE))


def _make_hub_answer(_seeds: list[bytes], random: Random, folder: Path) -> None:
    name = random.choice(("listing", "head", "file"))
    body = {"listing": json.dumps(_LISTING).encode(), "head": b"", "file": b"123456789"}[name]
    _hub_parts(folder, **{name: _mutated_answer(random, body, "" if name == "listing" else _FILE_HEADERS)})


def _page_case(page: bytes, headers: str, _seeds: list[bytes], folder: Path) -> None:
    (folder / "page").write_bytes(_answer(page, headers))


def _listing_case(listing: bytes, _seeds: list[bytes], folder: Path) -> None:
    _hub_parts(folder, listing=_answer(listing))


_PAGES: Final[Mapping[str, tuple[str, str]]] = {
    "nested links": ("<a href=x>" * 300_000, _HTML_TYPE),
    "comments": ("<!--" * 500_000, _HTML_TYPE),
    "quotes": ('<a" ">' * 300_000, _HTML_TYPE),
    "dashes": (f"<a href=x>my-model{'-a' * 100}.whl</a>" * 5_000, _HTML_TYPE),
    "device": (f"<a href='file:///dev/zero'>{WHEEL}</a>", _HTML_TYPE),
    "deep": ("[" * 1_000_000, _PEP691_TYPE),
    "login page": ("<html>Welcome</html>", _HTML_TYPE),
}

# -- archives ---------------------------------------------------------------------------------------------------------


def _archives(folder: Path) -> list[bytes]:
    _imports(folder)
    plain = hostile.tar(
        ("my_model-1.0/a", tarfile.REGTYPE, b"y" * 700),
        ("my_model-1.0/" + "long" * 40, tarfile.REGTYPE, b"z" * 100),
        ("my_model-1.0/ü", tarfile.REGTYPE, b"x" * 3000),
        ("other/link", tarfile.SYMTYPE, b""),
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a", "b/c"):
            archive.writestr(f"my_model-1.0/{name}", "text " * 300)
    return [plain, hostile.gzip.compress(plain), bz2.compress(plain), lzma.compress(plain), buffer.getvalue()]


def _make_archive(seeds: list[bytes], random: Random, folder: Path) -> None:
    number = random.randrange(len(seeds))
    name = "my_model-1.0.zip" if number == len(seeds) - 1 else SDIST
    (folder / name).write_bytes(mutated_bytes(random, seeds[number]))


def _try_archive(_seeds: list[bytes], folder: Path) -> None:
    uri = _MEMBER if (folder / WHEEL).exists() else _FOLDER
    _fetch(uri, folder, PIP_FIND_LINKS=folder.as_uri(), PIP_NO_INDEX="1")


def _archive_case(name: str, content: bytes, _seeds: list[bytes], folder: Path) -> None:
    (folder / name).write_bytes(content)


def _bomb(pack: Callable[[bytes], bytes]) -> Callable[[list[bytes], Path], None]:
    """2 GB of zeros in some kB: streams that follow one another."""

    def write(_seeds: list[bytes], folder: Path) -> None:
        zeros = pack(bytes(20_000_000))
        (folder / SDIST).write_bytes(pack(hostile.header("my_model-1.0/x", size=2_000_000_000)) + zeros * 100)

    return write


# -- a remote cache ---------------------------------------------------------------------------------------------------


def _remote(folder: Path) -> tuple[Path, str]:
    """A remote with one result, as a folder, and its key."""
    from colbuild.plan.drawing.keys import action_key
    from colbuild.progress import silent
    from colbuild.store import ActionRecord, open_store
    from colbuild.store.remote.remote_push import push
    from colbuild.store.remote.remote_store import open_remote
    from tests.store.processes import fill

    store = open_store(folder / "store")
    files = {"model.safetensors": b"weights" * 100, "sub/config.json": b"{}", "empty": b""}
    params, inputs = {"shape": {"layers": 2}, "seed": 1}, {"model": "0" * 64}
    key = action_key("distill", params, inputs)
    ledger = {"tokens": 5, "losses": [1.5, 1.0]}
    size = sum(map(len, files.values()))
    record = ActionRecord(
        key, "distill a", "distill", params, inputs, fill(store, files), size, 1.5, 1.7e9, False, ledger
    )
    store.record("family", record)
    push(open_remote(f"file://{folder}/remote"), store, [record], silent)
    return folder / "remote", key


def _copied(seeds: tuple[Path, str], folder: Path) -> list[Path]:
    shutil.copytree(seeds[0], folder / "remote")
    files = sorted(path for path in (folder / "remote").rglob("*") if path.is_file())
    for path in files:
        path.chmod(0o644)
    return files


def _make_remote(seeds: tuple[Path, str], random: Random, folder: Path) -> None:
    path = random.choice(_copied(seeds, folder))
    if path.suffix == ".json" and random.random() < 0.8:
        value = mutated_value(random, json.loads(path.read_bytes()))
        if isinstance(value, dict) and random.random() < 0.5:
            value.pop("check", None)
        path.write_text(json.dumps(value))
    else:
        path.write_bytes(mutated_bytes(random, path.read_bytes()))


def _try_remote(seeds: tuple[Path, str], folder: Path) -> None:
    from colbuild.plan.drawing.keys import record_key
    from colbuild.progress import silent
    from colbuild.store import open_store
    from colbuild.store.remote.remote_store import check, fetch, open_remote

    store, remote = open_store(folder / "store"), open_remote(f"file://{folder}/remote")
    store.prepare()
    check(remote)
    if fetch(remote, store, seeds[1], silent, record_key) is not None:
        assert store.lookup(seeds[1]) is not None


def _remote_case(suffix: str, change: Callable[[Path], None], seeds: tuple[Path, str], folder: Path) -> None:
    change(next(path for path in _copied(seeds, folder) if path.as_posix().endswith(suffix)))


def _deep_ledger(path: Path) -> None:
    record = json.loads(path.read_bytes())
    del record["check"]
    text = json.dumps({**record, "ledger": "DEEP"})
    path.write_text(text.replace('"DEEP"', '{"a": ' * 900 + "1" + "}" * 900))


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100_000_000_000)


DRIVERS: Final = (
    Driver(
        "index page", _imports, _make_page, _try_index,
        {name: partial(_page_case, page.encode(), kind) for name, (page, kind) in _PAGES.items()},
    ),
    Driver("index answer", _imports, _make_index_answer, _try_index),
    Driver(
        "hub listing", _imports, _make_listing, _try_hub,
        {f"odd {number}": partial(_listing_case, one) for number, one in enumerate([*hostile.odd_listings()][:12])},
    ),
    Driver("hub answer", _imports, _make_hub_answer, _try_hub),
    Driver(
        "source archive", _archives, _make_archive, _try_archive,
        {
            **{f"tar {name}": partial(_archive_case, SDIST, content) for name, (content, _) in TARS.items()},
            **{f"wheel {name}": partial(_archive_case, WHEEL, content) for name, (content, _) in ZIPS.items()},
            "2 GB of bz2": _bomb(bz2.compress),
            "2 GB of xz": _bomb(partial(lzma.compress, preset=0)),
            "2 GB of gz": _bomb(partial(hostile.gzip.compress, compresslevel=1)),
        },
    ),
    Driver(
        "remote cache", _remote, _make_remote, _try_remote,
        {
            "deep ledger": lambda seeds, folder: _remote_case(f"{seeds[1]}.json", _deep_ledger, seeds, folder),
            "huge record": lambda seeds, folder: _remote_case(f"{seeds[1]}.json", _huge, seeds, folder),
            "huge list": partial(_remote_case, "tree.json", _huge),
            "huge file": partial(_remote_case, "model.safetensors", _huge),
            "huge mark": partial(_remote_case, "/format", _huge),
        },
    ),
)  # fmt: skip
