"""Builds for the tests of faults: started within milliseconds (see `builder.py`), killed, and read about afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colbuild.run.sharing.verifying import verify_store
from colbuild.store import open_store
from tests.helpers.project import ROOT, copy_project, replace_in
from tests.store.little import content

SPEC = "specs/faults.yaml"
FAMILY = "faults"
CHECKPOINT_EVERY = 0.2

_SPEC = """
apiVersion: colbuild/v1
name: faults
ansnet: {source: ./.tiny/ansnet}
data:
  train: {source: ./.tiny/corpus.txt, heldout: 0.1}
  eval: {tokens: 1k}
order: {tokens: 1k}
chain:
  recipe: recipes/distill.yaml
  tokens: 12k
  sequence: 64
  precision: fp32
  anchors:
    - {name: large, params: 350k}
    - {name: small, params: 200k}
desnets:
  - {name: middle, params: 270k, exports: [tiny-int8]}
  - {name: shaped, shape: {layers: 4, ffn: 128}, recover: {recipe: recipes/recover.yaml, tokens: 8k}}
defaults:
  interpolate: {tokens: 512}
"""
"""A family with a step of every kind, and trainings that are long enough to be killed between two checkpoints."""

STEPS = 14
"""How many steps it has."""


def faults_project(folder: Path, inputs: Path) -> Path:
    """A fresh project with that family; nothing is built."""
    copy_project(folder, inputs)
    (folder / SPEC).write_text(_SPEC, encoding="utf-8")
    replace_in(folder / "recipes/distill.yaml", "checkpoint_every: 5min", f"checkpoint_every: {CHECKPOINT_EVERY}s")
    return folder


@dataclass
class Ended:
    """How a build ended, and what it printed."""

    code: int
    out: str
    err: str


@dataclass
class Build:
    """A build that has been started."""

    pid: int
    _told: Any
    _readers: list[threading.Thread]
    _texts: list[list[str]]

    def kill(self) -> None:
        """Kills the build's own process and nothing else, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Ended:
        """Waits until it and all that it started are gone."""
        code = int(self._told.readline())
        self._told.close()
        for reader in self._readers:
            # They end once no process is left that could print.
            reader.join(60)
            assert not reader.is_alive(), f"what the build {self.pid} started goes on without it"
        out, err = ("".join(text) for text in self._texts)
        return Ended(code, out, err)


def processes(session: int) -> list[int]:
    """The processes that live in the session of a build, whose own number it has; zombies left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, _, _, its = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(its) == session and state != "Z":
                found.append(int(folder.name))
    return found


@dataclass
class Builder:
    """Starts builds; as a context, it leaves none behind."""

    _control: socket.socket = field(init=False)
    _process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Builder:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.e2e.builder", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, cwd=ROOT, pass_fds=[theirs.fileno()], env={**os.environ, "OMP_WAIT_POLICY": "passive"}
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._process.wait(60)

    def start(
        self,
        folder: Path,
        *arguments: str,
        moment: str | None = None,
        fill: Path | None = None,
        limit: int | None = None,
    ) -> Build:
        """Starts `colbuild build` in a project.

        Args:
            folder: The project.
            arguments: Options of the command.
            moment: When the build is killed: a key of `builder.MOMENTS`.
            fill: At that moment the disk is filled by this file instead.
            limit: How large a file may get, in bytes.
        """
        wanted = {
            "folder": str(folder),
            "arguments": ["build", SPEC, *arguments],
            "moment": moment,
            "fill": None if fill is None else str(fill),
            "limit": limit,
        }
        ends = [os.pipe() for _ in range(3)]
        socket.send_fds(self._control, [json.dumps(wanted).encode()], [write for _, write in ends])
        for _, write in ends:
            os.close(write)
        out, err, told = (os.fdopen(read, encoding="utf-8") for read, _ in ends)
        texts: list[list[str]] = [[], []]
        readers = [
            threading.Thread(target=_read, args=pair, daemon=True) for pair in zip((out, err), texts, strict=True)
        ]
        for reader in readers:
            reader.start()
        return Build(int(told.readline()), told, readers, texts)

    def build(
        self,
        folder: Path,
        *arguments: str,
        moment: str | None = None,
        fill: Path | None = None,
        limit: int | None = None,
    ) -> Ended:
        """Builds, and waits for the end."""
        return self.start(folder, *arguments, moment=moment, fill=fill, limit=limit).wait()


def _read(stream: Any, into: list[str]) -> None:
    with stream:
        into.extend(stream)


# -- what a build left ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """All that counts of a finished build.

    Attributes:
        out: Every file in `out/`.
        objects: The digest of every result.
        steps: Step -> digest of its result.
    """

    out: dict[str, bytes]
    objects: frozenset[str]
    steps: dict[str, str]


def made(project: Path, store: Path | None = None) -> Made:
    """What a finished build left."""
    store = store or project / ".colbuild"
    objects = frozenset(path.name for path in store.glob("objects/*/*"))
    records = [json.loads(path.read_bytes()) for path in (store / "steps" / FAMILY).glob("*.json")]
    return Made(content(project / "out"), objects, {record["step"]: record["output"] for record in records})


def assert_whole(store: Path) -> None:
    """Every byte of every result is right."""
    assert verify_store(open_store(store)).damaged == ()


def assert_sound(store: Path) -> None:
    """Every byte of every result is right, and nothing half-made lies about."""
    assert_whole(store)
    assert list((store / "tmp").iterdir()) == []


def recorded_steps(store: Path) -> set[str]:
    """The steps whose action is recorded."""
    return {json.loads(path.read_bytes())["step"] for path in store.glob("actions/*/*.json")}


def runs(store: Path) -> list[list[dict[str, Any]]]:
    """The events of each build, the oldest first; torn last lines are left out."""
    return [_events(path) for path in sorted((store / "runs").glob("*.jsonl"))]


def _events(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def started(events: list[dict[str, Any]]) -> list[str]:
    """The steps that began to run in a build."""
    return [event["step"] for event in events if event["event"] == "step_started"]


def starts(store: Path) -> Counter[str]:
    """How often each step began to run, in all builds."""
    return Counter(step for events in runs(store) for step in started(events))


def printed(out: str) -> list[dict[str, Any]]:
    """The events of a `build --json`."""
    return [json.loads(line) for line in out.splitlines()]


def eventually(condition: Any, seconds: float = 10.0) -> float | None:
    """Waits until something holds; returns how long that took, None if it never did."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if condition():
            return time.monotonic() - began
        time.sleep(0.005)
    return None
