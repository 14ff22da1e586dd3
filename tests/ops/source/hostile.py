"""Hostile archives and answers: for the tests of sources, and as cases of their fuzzers."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

from tests.fuzz.mutate import deep_json

WHEEL = "my_model-1.0-py3-none-any.whl"
SDIST = "my_model-1.0.tar"
COMMIT = "a" * 40


def tar(*members: tuple[str, bytes, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, content in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = kind, len(content)
            entry.linkname = "/etc/hostname"
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, max(0, size)
    raw = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        raw[124:136] = b"\xff" + size.to_bytes(11, "big", signed=True)
        raw[148:156] = b"%06o\0 " % sum([*raw[:148], *raw[156:512], 256])
    return bytes(raw)


X = "my_model-1.0/x"
ZEROS = b"\0" * (1 << 20)
BOMB = tar((X, tarfile.REGTYPE, ZEROS * 4))

TARS: dict[str, tuple[bytes, str]] = {
    "bz2 bomb": (bz2.compress(BOMB), "limit of an"),
    "xz bomb before it": (lzma.compress(tar(("a", tarfile.REGTYPE, ZEROS * 4), (X, tarfile.REGTYPE, b"x"))), "limit of an"),
    "gz bomb": (gzip.compress(BOMB), "limit of an"),
    "xz with a large dictionary": (
        lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]), "is damaged",
    ),
    "larger than the archive": (header(X, size=1 << 33), "limit of an"),
    "truncated": (tar((X, tarfile.REGTYPE, b"x" * 5000))[:4000], "cannot be"),
    "backwards": (header("b") + header("a", size=-512) * 3, "points backwards"),
    "sparse": (header(X, tarfile.GNUTYPE_SPARSE, 512) + bytes(2048), "not a file"),
    "fifo": (header(X, tarfile.FIFOTYPE), "not a file"),
    "device": (header(X, tarfile.CHRTYPE), "not a file"),
    "symbolic link": (header(X, tarfile.SYMTYPE), "not a file"),
    "hard link": (header(X, tarfile.LNKTYPE), "not a file"),
    "long header": (header("a", tarfile.XHDTYPE, 1 << 30), "an archive's header"),
    "headers of headers": ((header("a", tarfile.XHDTYPE, 512) + b"\0" * 512) * 5000, "is damaged"),
    "nothing": (b"", "is damaged"),
}  # fmt: skip


def wheel(**fields: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", fields.pop("method", zipfile.ZIP_DEFLATED)) as archive:
        entry = zipfile.ZipInfo(fields.pop("name", "my_model/x.gguf"))
        entry.compress_type = archive.compression
        entry.external_attr = fields.pop("mode", stat.S_IFREG | 0o644) << 16
        archive.writestr(entry, fields.pop("content", b"x"))
    return buffer.getvalue()


ZIPS = {
    "bomb": (wheel(content=ZEROS * 4), "limit of an"),
    "bz2 bomb": (wheel(content=ZEROS * 4, method=zipfile.ZIP_BZIP2), "limit of an"),
    "lzma": (wheel(method=zipfile.ZIP_LZMA), "a compression that wheels do not use"),
    "fifo": (wheel(mode=stat.S_IFIFO), "not a file"),
    "link": (wheel(mode=stat.S_IFLNK, content=b"/etc/hostname"), "not a file"),
    "no zip": (b"PK\x05\x06", "is damaged"),
    "method": (wheel().replace(b"\x08\0", b"\x63\0"), "a compression that wheels do not use"),
}


ODD = (None, True, -1, 10**400, "\x1b[2J", "../../outside/written", [], {}, [None])
JSON_TYPE = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
PEP691 = {"meta": {"api-version": "1.0"}, "name": "my-model", "files": [{"filename": WHEEL, "url": "x", "hashes": {}}]}


def odd_pages() -> Iterator[bytes]:
    yield from (b"", b"\xff", b"<html>log in</html>", deep_json(100_000), b"9" * 10_000)
    for value in ODD:
        yield json.dumps(value).encode("utf-8", "surrogatepass")
        for key in ("meta", "files", "name"):
            yield json.dumps({**PEP691, key: value}).encode()
        for key in ("filename", "url", "hashes", "size"):
            yield json.dumps({**PEP691, "files": [{**PEP691["files"][0], key: value}]}).encode()


def odd_listings() -> Iterator[bytes]:
    whole = {"sha": COMMIT, "siblings": [{"rfilename": "x.gguf", "size": 1000}]}
    yield from (b"", b"\xff", b"<html>log in</html>", deep_json(100_000), b"9" * 10_000, b'{"siblings": []}')
    for value in ODD:
        yield json.dumps(value).encode()
        if value not in (None, [], {}):  # no list of files: the file is asked for all the same
            yield json.dumps({**whole, "siblings": value}).encode()
        yield json.dumps({**whole, "sha": value}).encode()
        yield json.dumps({**whole, "siblings": [value]}).encode()
        for key in ("rfilename", "size"):
            if key != "size" or value is not None:
                yield json.dumps({**whole, "siblings": [{**whole["siblings"][0], key: value}]}).encode()
