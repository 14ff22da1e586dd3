"""Packages from anywhere, as `verify` and `run` are given them: folders, packed files, and each of their parts."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy
import onnx
import zstandard
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.frame import Driver
from tests.fuzz.mutate import deep_json, mutated_bytes, mutated_json
from tests.helpers.toy_package import (
    GRAPH,
    list_files,
    make_toy_package,
    read,
    toy_graph,
)

MEMORY: Final = 2_500_000_000
SECONDS: Final = 1.0
"""What a toy may take here until its next step; a command gives 10 s, and the same for each MB."""
_PACKED: Final = "toy.tar.zst"


def start(folder: Path) -> Path:
    # What a trial's own processes need is imported once.

    return make_toy_package(folder / "toy")


def _verify(package: Path) -> None:
    from colbuild import verify_package
    from colbuild.export.runtime import guard

    guard.PACKAGE_SECONDS = SECONDS
    # Of a packed file: a name that leads outside then leads to where the frame sees it.
    tempfile.tempdir = str(package.parent if package.is_file() else package)
    verify_package(package)


def answer_with(package: Path, *, chat: bool = True) -> None:
    from colbuild import answer
    from colbuild.export.runtime import guard

    guard.PACKAGE_SECONDS = SECONDS
    list(answer(package, "hello", max_tokens=2, chat=chat))


def _pack(package: Path) -> None:
    from colbuild import pack

    pack(package, package.parent / _PACKED)


def _try_all(_seeds: Path, folder: Path) -> None:
    from colbuild.errors import ColbuildError

    refused = None
    for command in (_verify, _pack, answer_with):
        try:
            command(folder / "toy")
        except ColbuildError as error:
            refused = error
    if refused is not None:
        raise refused


def copied(toy: Path, folder: Path) -> Path:
    return Path(shutil.copytree(toy, folder / "toy"))


# -- the manifest -----------------------------------------------------------------------------------------------------


def _make_manifest(toy: Path, random: Random, folder: Path) -> None:
    package = copied(toy, folder)
    (package / "manifest.json").write_bytes(mutated_json(random, read(toy)))


def _with_manifest(**changes: Any) -> Callable[[Path, Path], None]:
    return lambda toy, folder: list_files(copied(toy, folder), **changes)


def special(name: str) -> Callable[[Path, Path], None]:
    def write(toy: Path, folder: Path) -> None:
        package = copied(toy, folder)
        (package / name).unlink()
        os.mkfifo(package / name)

    return write


def _as_bytes(content: bytes) -> Callable[[Path, Path], None]:
    return lambda toy, folder: void((copied(toy, folder) / "manifest.json").write_bytes(content))


def void(_: object) -> None:
    """Nothing."""


_MANIFESTS: Final = {
    "layers without end": _with_manifest(graph__layers=10**9),
    "no layers": _with_manifest(graph__layers=0),
    "wide heads": _with_manifest(graph__head_dim=2**50, graph__kv_heads=2**50),
    "long cache": _with_manifest(graph__cache_length=2**40),
    "long sequence": _with_manifest(graph__sequence=2**40, graph__cache_length=2**40),
    "patterns": _with_manifest(graph__past=["{layer:>999999999999}", "{layer.__class__}", "{0}"]),
    "half": _with_manifest(graph__cache="float16"),
    "no logits": _with_manifest(graph__outputs=[]),
    "many tokens": _with_manifest(sample__tokens=[0] * 500, sample__prompt=[1] * 4000),
    "too many tokens": _with_manifest(sample__tokens=[0] * 10**6),
    "unknown tokens": _with_manifest(sample__prompt=[2**40]),
    "unknown answer": _with_manifest(sample__tokens=[2**40]),
    "no prompt": _with_manifest(sample__prompt=[]),
    "outside": _with_manifest(graph__file="../../outside/canary"),
    "endless context": _with_manifest(profile__context=2**62),
    "other graph": _with_manifest(graph__file="config.json"),
    "pipe": special("manifest.json"),
    "deep": _as_bytes(deep_json(200_000)),
    "digits": _as_bytes(b'{"schema_version": ' + b"9" * 10_000 + b"}"),
    "surrogate": _as_bytes(b'{"schema_version": 1, "files": [{"path": "\\ud800", "size": 1, "sha256": "0"}]}'),
}


# -- the graph and what lies beside it --------------------------------------------------------------------------------


def _with_graph(make: Callable[[], onnx.ModelProto]) -> Callable[[Path, Path], None]:
    def write(toy: Path, folder: Path) -> None:
        package = copied(toy, folder)
        (package / GRAPH).write_bytes(make().SerializeToString())
        list_files(package)

    return write


def _outside(
    location: str, *, beside: Callable[[Path], None] = void, inner: bool = False
) -> Callable[[Path, Path], None]:
    """A graph whose table lies in another file."""

    def write(toy: Path, folder: Path) -> None:
        package = copied(toy, folder)
        model = toy_graph()
        table = model.graph.initializer[0]
        table.ClearField("raw_data")
        table.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "0", "length": "4096"}.items():
            table.external_data.add(key=key, value=value)
        if inner:
            model.graph.node[0].attribute.add(name="hidden", type=onnx.AttributeProto.TENSOR).t.CopyFrom(table)
            model.graph.initializer[0].CopyFrom(toy_graph().graph.initializer[0])
        (package / GRAPH).write_bytes(model.SerializeToString())
        beside(package / "onnx")
        list_files(package)

    return write


def _loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Sin", ["sum"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
    )
    tensors = [
        numpy_helper.from_array(numpy.array(2**62), "turns"),
        numpy_helper.from_array(numpy.array(True), "yes"),
        numpy_helper.from_array(numpy.array(0, numpy.float32), "zero"),
    ]
    return toy_graph([helper.make_node("Loop", ["turns", "yes", "zero"], ["added"], body=body)], "added", tensors)


def _filled(*, known: bool) -> onnx.ModelProto:
    """A tensor of 40 GB, made when the graph is loaded or when it runs."""
    length = [numpy_helper.from_array(numpy.array([10**10]), "length")]
    nodes = [helper.make_node("ConstantOfShape", ["length"], ["long"])]
    if not known:
        # Its length depends on the input.
        nodes = [
            helper.make_node("Shape", ["input_ids"], ["shape"]),
            helper.make_node("Mul", ["shape", "length"], ["lengths"]),
            helper.make_node("ReduceProd", ["lengths"], ["whole"]),
            helper.make_node("ConstantOfShape", ["whole"], ["long"]),
        ]
        length = [numpy_helper.from_array(numpy.array([1, 10**10]), "length")]
    return toy_graph([*nodes, helper.make_node("ReduceSum", ["long"], ["added"], keepdims=0)], "added", length)


def _other_logits() -> onnx.ModelProto:
    model = toy_graph([helper.make_node("Transpose", ["plain"], ["turned"])])
    model.graph.node[4].output[0] = "plain"
    model.graph.node.append(helper.make_node("Identity", ["turned"], ["logits"]))
    return model


def _large_dims() -> onnx.ModelProto:
    model = toy_graph()
    model.graph.initializer[0].dims[:] = [2**40, 2**20]
    return model


_GRAPHS: Final = {
    "a file outside": _outside("../../../outside/canary"),
    "a device": _outside("/dev/zero"),
    "a device by parents": _outside("../" * 30 + "dev/zero"),
    "a pipe": _outside("data", beside=lambda folder: os.mkfifo(folder / "data")),
    "a link": _outside("data", beside=lambda folder: (folder / "data").symlink_to("/dev/zero")),
    "no such file": _outside("data"),
    "short data": _outside("data", beside=lambda folder: void((folder / "data").write_bytes(b"x"))),
    "a file outside, inner": _outside("/dev/zero", inner=True),
    "a loop without end": _with_graph(_loop),
    "40 GB when loaded": _with_graph(lambda: _filled(known=True)),
    "40 GB when run": _with_graph(lambda: _filled(known=False)),
    "other logits": _with_graph(_other_logits),
    "large lengths": _with_graph(_large_dims),
    "empty": _with_graph(onnx.ModelProto),
}


def _make_package(toy: Path, random: Random, folder: Path) -> None:
    package = copied(toy, folder)
    path = random.choice(sorted(path for path in package.rglob("*") if path.is_file()))
    content = path.read_bytes()
    if path.suffix == ".json" and random.random() < 0.7:
        path.write_bytes(mutated_json(random, json.loads(content)))
    else:
        path.write_bytes(mutated_bytes(random, content))
    if path.name != "manifest.json" and random.random() < 0.9:
        # Whoever makes a hostile package writes digests that fit.
        list_files(package)


# -- packed -----------------------------------------------------------------------------------------------------------


def _tar(members: list[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=kind) as tar:
        for entry, content in members:
            tar.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


def _member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.linkname = len(content), kind, link
    return entry, content


def _members_of(toy: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    paths = sorted(path for path in toy.rglob("*") if path.is_file())
    return [_member(str(path.relative_to(toy)), path.read_bytes()) for path in paths]


def _packed(*members: tuple[tarfile.TarInfo, bytes], first: bool = True) -> Callable[[Path, Path], None]:
    def write(toy: Path, folder: Path) -> None:
        own = _members_of(toy)
        (folder / _PACKED).write_bytes(zstandard.compress(_tar([*members, *own] if first else [*own, *members])))

    return write


def _chain() -> list[tuple[tarfile.TarInfo, bytes]]:
    """Of CVE-2025-4517: links so long that their target is not resolved, and a last one that leads outside."""
    long, steps, members = "d" * 247, "abcdefghijklmnop", []
    path = ""
    for step in steps:
        members.append(_member(f"{path}{long}", kind=tarfile.DIRTYPE))
        members.append(_member(f"{path}{step}", kind=tarfile.SYMTYPE, link=long))
        path += f"{long}/"
    link = "/".join(steps) + "/" + "l" * 254
    members.append(_member(link, kind=tarfile.SYMTYPE, link="../" * len(steps)))
    members.append(_member("escape", kind=tarfile.SYMTYPE, link=f"{link}/../../outside"))
    members.append(_member("escape/written", b"x"))
    return members


def _chained(toy: Path, folder: Path) -> None:
    (folder / _PACKED).write_bytes(zstandard.compress(_tar([*_members_of(toy), *_chain()], tarfile.PAX_FORMAT)))


def _bomb(*, named: str, declared: int, real: int) -> Callable[[Path, Path], None]:
    def write(_toy: Path, folder: Path) -> None:
        entry = tarfile.TarInfo(named)
        entry.size = declared
        packer = zstandard.ZstdCompressor(level=1).compressobj()
        with (folder / _PACKED).open("wb") as file:
            file.write(packer.compress(entry.tobuf(tarfile.GNU_FORMAT)))
            for _ in range(real >> 20):
                file.write(packer.compress(bytes(1 << 20)))
            file.write(packer.flush())

    return write


def _pipe(_toy: Path, folder: Path) -> None:
    os.mkfifo(folder / _PACKED)


_ARCHIVES: Final = {
    "parent": _packed(_member("../outside/written", b"x")),
    "parents": _packed(_member("../../outside/written", b"x"), first=False),
    "absolute": _packed(_member("/tmp/colbuild-fuzz-written", b"x")),
    "link and a file through it": _packed(
        _member("link", kind=tarfile.SYMTYPE, link="../outside"), _member("link/written", b"x")
    ),
    "hard link": _packed(_member("link", kind=tarfile.LNKTYPE, link="../outside/canary"), _member("link", b"x")),
    "chain of links": _chained,
    "device": _packed(_member("null", kind=tarfile.CHRTYPE)),
    "pipe inside": _packed(_member("pipe", kind=tarfile.FIFOTYPE)),
    "twice": _packed(_member("README.md", b"x")),
    "file and folder": _packed(_member("README.md/x", b"x"), first=False),
    "sparse": _packed(_member("holes", kind=tarfile.GNUTYPE_SPARSE)),
    "many files": _packed(*(_member(f"f{place}") for place in range(10_001))),
    "bomb": _bomb(named="zeros", declared=12 << 30, real=300 << 20),
    "bomb, listed": _bomb(named="manifest.json", declared=12 << 30, real=300 << 20),
    "long name": _bomb(named="x" * 300, declared=12 << 30, real=100 << 20),
    "pipe": _pipe,
}


def _make_archive(toy: Path, random: Random, folder: Path) -> None:
    if random.random() < 0.4:
        kinds = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE)
        names = ("a", "a/b", "..", "../outside/w", ".", "/", "a/../../outside/w", "onnx", "manifest.json", "\udcff", "")
        more = [
            _member(random.choice(names), random.randbytes(3), random.choice(kinds), random.choice(names))
            for _ in range(random.randrange(1, 6))
        ]
        formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
        own = _members_of(toy)
        whole = _tar([*more, *own] if random.random() < 0.5 else [*own, *more], random.choice(formats))
        (folder / _PACKED).write_bytes(zstandard.compress(whole))
        return
    whole = _tar(_members_of(toy))
    packed = zstandard.compress(mutated_bytes(random, whole) if random.random() < 0.6 else whole)
    (folder / _PACKED).write_bytes(packed if random.random() < 0.6 else mutated_bytes(random, packed))


def _try_archive(_seeds: Path, folder: Path) -> None:
    _verify(folder / _PACKED)


DRIVERS: Final = (
    Driver("package.tar.zst", start, _make_archive, _try_archive, _ARCHIVES, memory=MEMORY),
    Driver("manifest.json", start, _make_manifest, _try_all, _MANIFESTS, memory=MEMORY),
    Driver("package", start, _make_package, _try_all, _GRAPHS, memory=MEMORY),
)
