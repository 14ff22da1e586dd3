"""Two speeds of this machine, measured once, for estimates without a comparable recorded run.

The two numbers are remembered in the user's cache folder, with what the machine is known by: a home directory may be shared by
several machines. Nothing is measured until a plan asks, and what cannot be remembered is measured again by the next plan.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Final

from colbuild.store.durable_files import checked, read_json, unchecked, write_json

CACHE_VARIABLE: Final = "COLBUILD_CACHE"
FORMAT: Final = "colbuild.machine.v1"
"""Raised when what is measured changes: older numbers are then measured again."""

_REMEMBERED = 16
"""Machines at most; those measured longest ago are forgotten first."""

_SIDE = 64
"""Of the square matrices: large enough for a core to be at its best, too small for a library to use several."""

_STACK = 64
_TEXT = "the quick brown fox, 42 years old, jumps over 3.14 lazy dogs; naïvely so.\n" * 50
_BUDGET = 0.05
"""Seconds for each of the two measurements; a round takes less than a millisecond."""


@dataclass(frozen=True)
class Machine:
    """The identity of a machine.

    Attributes:
        host: Its name.
        processor: The processor's model.
        cores: Cores that this process may use.
        threads: Cores that matrix products are to use.
    """

    host: str
    processor: str
    cores: int
    threads: int


@dataclass(frozen=True)
class MachineSpeed:
    """The speed of a machine.

    Attributes:
        matrices: FLOPs per second of multiplying fp32 matrices on these cores, each by itself.
        plain: Bytes of text per second that one core splits into words and counts.
    """

    matrices: float
    plain: float


def machine_speed() -> MachineSpeed:
    """The speed of this machine: as remembered, else measured now, which takes about a fifth of a second, and remembered.

    A cache that is unreadable, damaged or of another version holds nothing; one that cannot be written stays as it is.
    """
    machine, path = this_machine(), cache_path()
    known = _remembered(path)
    if machine in known:
        return known[machine]
    speed = measure_speed()
    if path is not None:
        # Nobody's plan fails because there is no place for this.
        with suppress(OSError):
            remember(path, known | {machine: speed})
    return speed


def cache_path() -> Path | None:
    """Returns the file of remembered speeds, in `COLBUILD_CACHE` or the user's cache folder; None without a home."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own) / "machine.json"
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return caches / "colbuild" / "machine.json"


def this_machine() -> Machine:
    """Returns the identity of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # The libraries of matrices, torch's too, obey this variable.
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(cores, int(asked)) if asked.isdecimal() and int(asked) > 0 else cores
    return Machine(platform.node(), processor(), cores, threads)


def remember(path: Path, speeds: dict[Machine, MachineSpeed]) -> None:
    """Writes the speeds of machines, the latest last.

    Raises:
        OSError: They cannot be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    latest = list(speeds.items())[-_REMEMBERED:]
    machines = [{**asdict(machine), **asdict(speed)} for machine, speed in latest]
    write_json(path.parent, path, checked({"format": FORMAT, "machines": machines}))


def measure_speed() -> MachineSpeed:
    """Measures this machine, in about a tenth of a second of each core."""
    threads = this_machine().threads
    # Each core by itself, all at once. One product on all cores would wait for the slowest of them: beside other work it was
    # seen to run at a hundredth of its speed.
    with ThreadPoolExecutor(threads) as pool:
        matrices = sum(pool.map(lambda _: _matrices(), range(threads)))
    return MachineSpeed(matrices, _plain())


def _matrices() -> float:
    """FLOPs per second of one core, of products so small that no library spreads one over several."""
    import numpy

    stack = numpy.ones((_STACK, _SIDE, _SIDE), numpy.float32)
    products = numpy.empty_like(stack)
    return 2 * _STACK * _SIDE**3 / _best(lambda: numpy.matmul(stack, stack[0], out=products))


def _plain() -> float:
    text = _TEXT.encode()

    def count_words() -> None:
        counts: dict[str, int] = {}
        for word in re.findall(r"\w+|[^\w\s]+|\s+", text.decode()):
            counts[word] = counts.get(word, 0) + 1

    return len(text) / _best(count_words)


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of many short rounds: other work that runs here takes time from some, hardly ever from all."""
    work()  # wakes the core, and fills its caches
    fastest, end = float("inf"), time.perf_counter() + _BUDGET
    while (start := time.perf_counter()) < end or fastest == float("inf"):
        work()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def _remembered(path: Path | None) -> dict[Machine, MachineSpeed]:
    held = unchecked(read_json(path)) if path is not None else None
    if held is None or held.get("format") != FORMAT:
        return {}
    try:
        return {
            Machine(one["host"], one["processor"], one["cores"], one["threads"]): MachineSpeed(
                _positive(one["matrices"]), _positive(one["plain"])
            )
            for one in held["machines"]
        }
    except (KeyError, TypeError, ValueError, OverflowError):
        return {}


def _positive(value: object) -> float:
    if isinstance(value, int | float) and isfinite(value) and value > 0:
        return float(value)
    raise ValueError("a speed is a number above 0")


def processor() -> str:
    """The processor's model, as Linux tells it; elsewhere its kind."""
    with suppress(OSError):
        told = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        if told:
            return told[1].strip()
    return platform.machine()
