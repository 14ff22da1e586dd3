"""The store's own small files: roots, pins, ids of projects, marks, records of downloads and remembered digests.

A store may be another user's, or unpacked from an archive of somebody's. What stands in it may cost results; it may not lead
out of the store, end in a traceback, or give a digest that the bytes do not have.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.fuzz.frame import Driver
from tests.fuzz.mutate import deep_json, mutated_bytes, mutated_json, mutated_value

KINDS: Final = ("root", "pin", "id", "mark", "record", "action", "step")
_URI: Final = "pypi://a/b.txt"
_OUTSIDE: Final = "../../outside/written"


@dataclass(frozen=True)
class Seeds:
    """A sound project with a store: its folder, and the path of each kind of file in it."""

    folder: Path
    files: Mapping[str, str]


def _start(folder: Path) -> Seeds:
    from dataclasses import replace

    from colbuild.fetch import downloads
    from colbuild.progress import silent
    from colbuild.store import open_store
    from colbuild.store.collecting.pins import Pin, pin
    from colbuild.store.collecting.roots import note_root
    from tests.store.processes import RECORD, fill

    project = folder / "project"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    for name in ("fam.lock", "source.txt"):
        (project / name).write_text("{}")
    os.utime(project / "source.txt", (1, 1))
    store = open_store(project / ".colbuild")
    digest = fill(store, {"weights": b"1"})
    made = replace(RECORD, output=digest)
    store.record("fam", made)
    pin(store, Pin(digest, "phone"))

    def get(path: Path, _known: Mapping[str, str], _report: object) -> Mapping[str, str]:
        path.write_bytes(b"text")
        return {"commit": "0123"}

    downloads.fetch_once(downloads.Download(_URI, "b.txt", get), downloads=store.downloads, sha256=None, report=silent)
    note_root(
        store,
        lock=project / "fam.lock",
        spec=project / "fam.yaml",
        family="fam",
        records={made.step: made},
        sources=[_URI],
    )
    found = {
        "root": next((store.root / "roots").glob("*.json")),
        "pin": next((store.root / "pins").glob("*.json")),
        "id": store.root / "project.json",
        "mark": store.root / "format",
        "record": next(store.downloads.glob("*/record.json")),
        "action": next((store.root / "actions").glob("*/*.json")),
        "step": next((store.root / "steps").glob("*/*.json")),
    }
    # A command imports what it needs; a trial shall not.
    shutil.copytree(project, folder / "tried", dirs_exist_ok=True)
    with chdir(folder / "tried"):
        _attempt(Seeds(project, {}), Path.cwd())
    return Seeds(project, {kind: path.relative_to(project).as_posix() for kind, path in found.items()})


def _copy(seeds: Seeds, folder: Path) -> None:
    shutil.copytree(seeds.folder, folder, dirs_exist_ok=True)


def _sealed(values: Any) -> bytes:
    """JSON with a check that fits, as whoever may write to a store can make it."""
    from colbuild.store.durable_files import checked

    if not isinstance(values, dict):
        return json.dumps(values).encode("utf-8", "surrogateescape")
    try:
        return json.dumps(checked({name: value for name, value in values.items() if name != "check"})).encode()
    except (ValueError, TypeError):
        return json.dumps(values).encode("utf-8", "replace")


def _make(seeds: Seeds, random: Random, folder: Path) -> None:
    _copy(seeds, folder)
    kind = random.choice(KINDS)
    path = folder / seeds.files[kind]
    good = path.read_bytes()
    if kind == "mark" or random.random() < 0.2:
        path.write_bytes(mutated_bytes(random, good))
    elif random.random() < 0.4:
        path.write_bytes(mutated_json(random, json.loads(good)))
    else:
        path.write_bytes(_sealed(mutated_value(random, json.loads(good))))


def _attempt(_seeds: Seeds, folder: Path) -> None:
    """What `cache ls`, `verify` and `gc`, a build's note of a root, and the digests that go into a lock make of it."""
    from colbuild.cli.app import run_command

    for arguments in (
        ("cache", "ls"),
        ("cache", "verify", "--json"),
        ("cache", "gc", "--lease", "0s", "--delete", "--forget"),
    ):
        # The command line words every error of colbuild's; whatever else is raised comes out here.
        run_command(list(arguments))
    _note(folder)
    _sources(folder)


def _note(folder: Path) -> None:
    from dataclasses import replace

    from colbuild.errors import ColbuildError
    from colbuild.store import open_store
    from colbuild.store.collecting.roots import note_root
    from tests.store.processes import RECORD

    try:
        store = open_store(folder / ".colbuild")
        store.prepare()
    except ColbuildError:
        return
    found = store.last("fam", RECORD.step)
    records = {} if found is None else {RECORD.step: replace(RECORD, output=found.output)}
    note_root(
        store,
        lock=folder / "fam.lock",
        spec=folder / "fam.yaml",
        family="fam",
        records=records,
        sources=(),
        steps=["a"],
    )


def _sources(folder: Path) -> None:
    """What a lock takes from downloads is what the files hold."""
    from colbuild.fetch.downloads import recorded
    from colbuild.fetch.remembered_digests import remembered_hash
    from colbuild.hashing import hash_file

    downloads = folder / ".colbuild/downloads"
    recorded(downloads, _URI)
    if remembered_hash(folder / "source.txt", downloads) != hash_file(folder / "source.txt"):
        raise AssertionError("a digest that the bytes do not have")


def _wrote(kind: str, content: bytes) -> Callable[[Seeds, Path], None]:
    def write(seeds: Seeds, folder: Path) -> None:
        _copy(seeds, folder)
        path = folder / seeds.files[kind]
        path.write_bytes(content)

    return write


def _changed(kind: str, **values: Any) -> Callable[[Seeds, Path], None]:
    def write(seeds: Seeds, folder: Path) -> None:
        _copy(seeds, folder)
        path = folder / seeds.files[kind]
        path.write_bytes(_sealed({**json.loads(path.read_bytes()), **values}))

    return write


def _pipe(kind: str) -> Callable[[Seeds, Path], None]:
    def write(seeds: Seeds, folder: Path) -> None:
        _copy(seeds, folder)
        path = folder / seeds.files[kind]
        path.unlink()
        os.mkfifo(path)

    return write


_RESULT: Final = {"step": "distill a76", "key": "k" * 64, "output": _OUTSIDE}
_CASES: Final[Mapping[str, Mapping[str, Callable[[Seeds, Path], None]]]] = {
    "root": {
        "a result outside": _changed(
            "root", results=[_RESULT, {**_RESULT, "output": "/" * 70}, {**_RESULT, "output": "\0"}]
        ),
        "a lock with a zero": _changed("root", lock="\0", watched="a\0b"),
        "a name too long": _changed("root", lock="/" + "a" * 10_000, watched="/" + "a/" * 10_000),
        "seen nowhere": _changed("root", seen=[{"folder": "\0", "at": 1e308}, {"folder": "", "at": -1e308}]),
        "seen never": _changed("root", project="f" * 32, beside="", seen=[{"folder": "/nowhere", "at": float("inf")}]),
        "beside everything": _changed("root", beside="../" * 5_000),
        "a number for a source": _changed("root", sources=["\ud800", "a" * 100_000]),
    },
    "record": {
        "a file outside": _changed("record", files=[{"path": _OUTSIDE, "size": 1, "sha256": "0" * 64}]),
        "a uri with a surrogate": _changed("record", uri="\ud800"),
    },
    "action": {"a result outside": _changed("action", output=_OUTSIDE), "a zero": _changed("action", output="\0" * 64)},
    "step": {"a result outside": _changed("step", output=_OUTSIDE)},
    "mark": {"a number of many digits": _wrote("mark", b"colbuild store " + b"9" * 10_000)},
}


def _cases() -> dict[str, Callable[[Seeds, Path], None]]:
    found: dict[str, Callable[[Seeds, Path], None]] = {}
    for kind in KINDS:
        cases = {"a pipe": _pipe(kind), "not text": _wrote(kind, b"\xff\xfe\0"), **_CASES.get(kind, {})}
        if kind != "mark":
            cases["deep"] = _wrote(kind, deep_json(100_000))
        found |= {f"{kind}: {name}": case for name, case in cases.items()}
    return found


def _hash_make(seeds: Seeds, random: Random, folder: Path) -> None:
    """Remembered digests: the signature fits the file as it lies here."""
    _copy(seeds, folder)
    path, good = _remembered(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    changed = mutated_json(random, good) if random.random() < 0.5 else mutated_bytes(random, json.dumps(good).encode())
    path.write_bytes(changed)


def _remembered(folder: Path) -> tuple[Path, dict[str, Any]]:
    import hashlib

    from colbuild.fetch.remembered_digests import _signature
    from colbuild.hashing import hash_file
    from colbuild.store.durable_files import checked

    source = folder / "source.txt"
    name = hashlib.sha256(os.fsencode(source.absolute())).hexdigest()
    values = checked({"signature": _signature(source.stat()), "sha256": hash_file(source)})
    return folder / ".colbuild/downloads/hashes" / name[:2] / f"{name}.json", values


def _unsealed(seeds: Seeds, folder: Path) -> None:
    _copy(seeds, folder)
    path, good = _remembered(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"signature": good["signature"], "sha256": "0" * 64}))


DRIVERS: Final = (
    Driver("store's notes", _start, _make, _attempt, _cases()),
    Driver("remembered digests", _start, _hash_make, _attempt, {"without a check": _unsealed}),
)
