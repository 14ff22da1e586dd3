"""Files that colbuild itself writes: those of the store, locks, saved plans and records of builds, damaged in any way."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Final

from colbuild.store.durable_files import CHECK, checked
from tests.fuzz.frame import Driver
from tests.fuzz.mutate import deep_json, mutated_bytes, mutated_json, mutated_value

_SPEC: Final = "specs/tiny.yaml"
_ALL: Final = (
    ("status", _SPEC),
    ("why", "distill", "large", _SPEC),
    ("cache", "ls"),
    ("cache", "verify"),
    ("cache", "pin", "least", _SPEC),
    ("build", _SPEC, "--plan", "saved.json"),
    ("cache", "gc", "--delete"),
    ("cache", "unpin", "middle"),
    ("build", _SPEC),
)
"""What a user may type next; all of it is tried, in this order."""


@dataclass(frozen=True)
class Kind:
    """Files of one kind: where they lie in a project, and the commands that read them."""

    patterns: tuple[str, ...]
    readers: tuple[tuple[str, ...], ...]


KINDS: Final[dict[str, Kind]] = {
    "store": Kind(
        (
            ".colbuild/actions/*/*.json", ".colbuild/steps/*/*.json", ".colbuild/objects/*/*/tree.json",
            ".colbuild/objects/*/*/stat.json", ".colbuild/memo/**/*.json", ".colbuild/pins/*.json", ".colbuild/roots/*.json",
            ".colbuild/outputs/**/*.json", ".colbuild/downloads/**/*.json", ".colbuild/format", ".colbuild/format.copy",
        ),
        _ALL,
    ),
    "store: runs": Kind((".colbuild/runs/*.jsonl",), (("status", _SPEC), ("plan", _SPEC), ("status", _SPEC, "--json"))),
    "store: results": Kind(
        (".colbuild/objects/*/*/files/metrics.json", "out/**/*.json"), (("status", _SPEC), ("plan", _SPEC), ("build", _SPEC))
    ),
    "family.lock": Kind(("specs/*.lock",), (("plan", _SPEC, "--locked"), ("status", _SPEC), ("lock", _SPEC), ("plan", _SPEC))),
    "saved plan": Kind(("saved.json",), (("build", _SPEC, "--plan", "saved.json"),)),
}  # fmt: skip


@cache
def _built() -> Path:
    """One for all drivers of a process."""
    from tests.fuzz.stored import make_built

    folder = Path(tempfile.mkdtemp(prefix="colbuild-built-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_built(folder)


def _start(_folder: Path) -> Path:

    os.environ.pop("COLBUILD_STORE", None)
    return _built()


def _copy(project: Path, into: Path) -> Path:
    return Path(shutil.copytree(project, into / "project", symlinks=True))


def _files(project: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in project.glob(pattern) if path.is_file()})


def _write(path: Path, content: bytes) -> None:
    # Files of the store are read-only, and may be one file with their copies in `out/`.
    path.unlink()
    path.write_bytes(content)


def _make(patterns: Sequence[str], project: Path, random: Random, into: Path) -> None:
    copy = _copy(project, into)
    for _ in range(random.choice((1, 1, 3))):
        path = random.choice(_files(copy, patterns))
        _write(path, _changed(random, path.read_bytes()))


def _changed(random: Random, content: bytes) -> bytes:
    lines = content.splitlines()
    if len(lines) > 1 and content.startswith(b'{"'):
        # A record of a build: a value a line.
        place = random.randrange(len(lines))
        lines[place] = _changed(random, lines[place]).replace(b"\n", b" ")
        return b"\n".join(lines)
    if random.random() < 0.2:
        return mutated_bytes(random, content)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return mutated_bytes(random, content)
    if isinstance(value, dict) and CHECK in value and random.random() < 0.7:
        # As somebody would write it who knows how: the checksum fits.
        changed = mutated_value(random, {key: part for key, part in value.items() if key != CHECK})
        if isinstance(changed, dict):
            return json.dumps(checked(changed)).encode("utf-8", "replace")
    return mutated_json(random, value)


def _attempt(kind: Kind, _project: Path, folder: Path) -> None:
    from colbuild.cli.app import run_command
    from colbuild.plan.operation import Operation
    from colbuild.run import executor
    from tests.fuzz.stored import write_instead
    from tests.helpers.nurseries import ThreadNursery

    executor.open_nursery = ThreadNursery  # type: ignore[assignment]
    Operation.carry_out = lambda _, step, values: write_instead(step, values)  # type: ignore[method-assign]
    os.chdir(folder / "project")
    for arguments in kind.readers:
        run_command(list(arguments))


def _everywhere(contents: Sequence[Callable[[Path], None]], kind: Kind, project: Path, into: Path) -> None:
    """Every file of a kind is something else: the first the first, and so on."""
    for path, content in zip(_files(_copy(project, into), kind.patterns), cycle(contents), strict=False):
        path.unlink()
        content(path)


def _bytes(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


_CONTENTS: Final[dict[str, Callable[[Path], None]]] = {
    "deep": _bytes(deep_json(100_000)),
    "less deep": _bytes(b'{"a":' * 900 + b"1" + b"}" * 900),
    "list": _bytes(b"[1e999]"),
    "no UTF-8": _bytes(b'{"format": "\xff\xfe"}'),
    "empty": _bytes(b""),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
}


def _driver(name: str, kind: Kind) -> Driver:
    contents = tuple(_CONTENTS.values())
    cases = {
        "all kinds of content": partial(_everywhere, contents, kind),
        "the same the other way round": partial(_everywhere, contents[::-1], kind),
    }
    if len(kind.readers) < len(_ALL):
        cases = {told: partial(_everywhere, [content], kind) for told, content in _CONTENTS.items()}
    return Driver(name, _start, partial(_make, kind.patterns), partial(_attempt, kind), cases, seconds=60.0)


DRIVERS: Final[tuple[Driver, ...]] = tuple(_driver(name, kind) for name, kind in KINDS.items())
