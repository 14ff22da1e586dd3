"""How much memory each step of a build has at its peak, seen from outside: the proportional set size of its process tree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.benchmarks.project import ROOT

EVERY: Final = 0.02
"""Seconds between two looks; a look itself takes some milliseconds."""

_STARTED: Final = re.compile(r"-- (.+), \d{4}-\d\d-\d\d .*, process (\d+), \d+ threads")


@dataclass
class Watch:
    """Looks at a build's processes until it ends.

    ::

        build ── nursery ── step ── what it starts

    A step's process is forked from the nursery, whose pages it shares as long as neither writes to them. So what a step
    needs, where it runs alone, is what the whole tree has.

    Attributes:
        build: The build's process.
        peaks: Process of a step -> bytes of the whole tree at its peak.
    """

    build: int
    peaks: dict[int, int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Looks again and again."""
        while not self._over.wait(EVERY):
            self.look()

    def stop(self) -> None:
        """Ends `run`."""
        self._over.set()

    def look(self) -> None:
        """Looks once; not while one step ends and the next begins."""
        steps = [step for nursery in _children(self.build) for step in _children(nursery)]
        if len(steps) == 1:
            whole = sum(map(proportional, _tree(self.build)))
            self.peaks[steps[-1]] = max(self.peaks.get(steps[-1], 0), whole)


def peaks_of(project: Path, store: Path, *arguments: str) -> dict[str, int]:
    """Builds one step after the other; step -> bytes at its peak, for the steps that ran and were not found in the store.

    Raises:
        CalledProcessError: The build failed.
    """
    command = [sys.executable, "-m", "colbuild", "build", *arguments, "--jobs", "1", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLBUILD_STORE": str(store)}
    before = set(store.glob("logs/*"))
    with subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True) as process:
        watch = Watch(process.pid)
        thread = threading.Thread(target=watch.run, daemon=True)
        thread.start()
        output, _ = process.communicate()
        watch.stop()
        thread.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    logs = [log for run in set(store.glob("logs/*")) - before for log in run.glob("*.log")]
    named = {
        int(found[2]): found[1] for log in logs for found in _STARTED.finditer(log.read_text("utf-8", errors="replace"))
    }
    events = [json.loads(line) for line in output.splitlines()]
    ran = {event["step"] for event in events if event["event"] == "step_finished"}
    return {named[one]: peak for one, peak in watch.peaks.items() if named.get(one) in ran}


def proportional(process: int) -> int:
    """A process's proportional set size in bytes; 0 where it is gone."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text("ascii")
    except (OSError, ValueError):
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _children(process: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            found += [int(child) for child in (thread / "children").read_text("ascii").split()]
    return found


def _tree(process: int) -> Iterator[int]:
    yield process
    for child in _children(process):
        yield from _tree(child)
