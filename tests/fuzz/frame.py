"""Tries hostile inputs, each in a process of its own: what may come of one is a result or an error that colbuild words.

::

    driver.start(folder)            once: the seeds, and all that has to be imported
    driver.cases / driver.make      writes one input into an empty folder
    driver.attempt(seeds, folder)   in a forked process: reads it as a command does

A trial fails where the process raises anything but a `ColbuildError` (a traceback), dies by a signal, runs too long, needs
too much memory, or writes outside the folder that it was given.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from colbuild.errors import ColbuildError

OUTCOMES: Final = ("read", "refused", "traceback", "hang", "memory", "outside")
FAULTS: Final = OUTCOMES[2:]
_LARGEST_FILE: Final = 1 << 30


@dataclass(frozen=True)
class Driver:
    """One kind of file.

    Attributes:
        kind: Its name, as in the table of counts.
        start: Prepares once, in a folder that is kept: returns the seeds, which `make` and `attempt` are given. Imports what
            `attempt` needs, so that a trial does not.
        make: Writes one input, drawn by the generator, into an empty folder.
        attempt: Reads the input in that folder as a command of colbuild does. Its working folder is the input's.
        cases: Name of a case -> writes this input; each is tried once, before those that are drawn.
        seconds: A trial that runs longer hangs.
        memory: Bytes that a trial may need beyond those of the process it is forked from.
    """

    kind: str
    start: Callable[[Path], Any]
    make: Callable[[Any, Random, Path], None]
    attempt: Callable[[Any, Path], None]
    cases: Mapping[str, Callable[[Any, Path], None]] = field(default_factory=dict)
    seconds: float = 20.0
    memory: int = 1_000_000_000


@dataclass(frozen=True)
class Fault:
    """An input that got through: its kind, the case's name or the number that it was drawn with, and what came of it."""

    kind: str
    case: str
    outcome: str
    told: str


@dataclass(frozen=True)
class Tally:
    """What came of the inputs of one kind."""

    kind: str
    counts: Mapping[str, int]
    faults: tuple[Fault, ...]


def fuzz(driver: Driver, folder: Path, *, seconds: float, seed: int = 0, most: int | None = None) -> Tally:
    """Tries the driver's cases, then drawn inputs for the seconds, or until `most` were drawn.

    Inputs that got through are kept in `folder/faults`.
    """
    started = folder / "seeds"
    started.mkdir(parents=True, exist_ok=True)
    seeds = driver.start(started)
    counts: Counter[str] = Counter()
    faults: list[Fault] = []
    ends = None
    for name, write in _inputs(driver, seeds, seed, most):
        drawn = name.isdigit()
        if drawn:
            # From the first of these on: cases are tried all, however long they take.
            ends = ends or time.monotonic() + seconds
            if time.monotonic() > ends:
                break
        outcome, told = _trial(driver, seeds, folder / "trial", write)
        counts[outcome] += 1
        if outcome in FAULTS:
            faults.append(Fault(driver.kind, name, outcome, told))
            # A pipe or a device cannot be copied; the case makes it anew.
            with suppress(shutil.Error):
                kept = folder / "faults" / f"{driver.kind}-{name}"
                shutil.copytree(folder / "trial/input", kept, dirs_exist_ok=True, symlinks=True)
    return Tally(driver.kind, dict(counts), tuple(faults))


def _inputs(driver: Driver, seeds: Any, seed: int, most: int | None) -> Iterator[tuple[str, Callable[[Path], None]]]:
    for name, case in driver.cases.items():
        yield name, lambda into, case=case: case(seeds, into)  # type: ignore[misc]
    number = 0
    while most is None or number < most:
        generator = Random(f"{driver.kind} {seed} {number}")
        yield str(number), lambda into, generator=generator: driver.make(seeds, generator, into)  # type: ignore[misc]
        number += 1


def _trial(driver: Driver, seeds: Any, folder: Path, write: Callable[[Path], None]) -> tuple[str, str]:
    shutil.rmtree(folder, ignore_errors=True)
    given, outside = folder / "input", folder / "outside"
    given.mkdir(parents=True)
    outside.mkdir()
    (outside / "canary").write_text("unchanged")
    write(given)
    before = _listed(folder, given)
    told = folder.with_name("told")
    told.unlink(missing_ok=True)
    base = _resident()
    child = os.fork()
    if child == 0:
        _read(driver, seeds, given, told)
    status, peak = _waited(child, driver.seconds)
    if status is None:
        return "hang", f"longer than {driver.seconds:g} s"
    outcome, _, text = (told.read_text("utf-8") if told.exists() else "").partition("\n")
    if peak - base > driver.memory or outcome == "memory":
        return "memory", f"{(peak - base) / 1e9:.1f} GB {text}"
    if _listed(folder, given) != before:
        return "outside", f"the files beside the input are others now: {sorted(_listed(folder, given))}"
    if not outcome:
        return "traceback", f"the process died with status {status}"
    return outcome, text


def _read(driver: Driver, seeds: Any, given: Path, told: Path) -> None:
    """In the forked process: never returns."""
    outcome, text = "read", ""
    try:
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
        data = _data() + 2 * driver.memory
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
        os.chdir(given)
        driver.attempt(seeds, given)
    except ColbuildError as error:
        outcome, text = "refused", error.message
    except MemoryError:
        outcome, text = "memory", traceback.format_exc()
    except SystemExit:
        outcome, text = "refused", ""
    except BaseException:  # noqa: BLE001 - whatever else comes out is a fault
        outcome, text = "traceback", traceback.format_exc()
    with suppress(BaseException):
        told.write_text(f"{outcome}\n{text}", encoding="utf-8", errors="replace")
    os._exit(0)


def _waited(child: int, seconds: float) -> tuple[int | None, int]:
    """A process's exit status, and its largest resident set in bytes; no status where it ran too long."""
    ends, pause = time.monotonic() + seconds, 0.001
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage.ru_maxrss * 1024
        if time.monotonic() > ends:
            os.kill(child, signal.SIGKILL)
            os.wait4(child, 0)
            return None, 0
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _listed(folder: Path, given: Path) -> dict[str, tuple[int, int]]:
    """Files and folders beside the input: path -> size and time."""
    paths = [path for path in folder.rglob("*") if given not in (path, *path.parents)]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def _data() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[5]) * resource.getpagesize()
