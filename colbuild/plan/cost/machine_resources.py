"""The resources that a build may use, and the resources that a step needs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colbuild.plan.steps.operations import OPERATIONS

_CGROUP_MEMORY: Final = Path("/sys/fs/cgroup/memory.max")
_GPU: Final = re.compile(r"nvidia[0-9]+")


@dataclass(frozen=True)
class Resources:
    """The resources that a build may use.

    Attributes:
        cores: Processor cores.
        memory: Bytes of memory.
        gpus: Numbers of GPUs.
    """

    cores: int
    memory: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Demand:
    """The resources that a running step needs.

    Attributes:
        cores: As many threads it computes with. It follows from the operation and the machine alone, never from what runs
            beside it: sums may come out differently with another number of threads.
        memory: Bytes at its peak, as the plan estimates them.
        gpus: How many GPUs.
    """

    cores: int
    memory: int
    gpus: int = 0


def machine() -> Resources:
    """Returns the resources of this process: its cores, its memory limit, the GPUs it may use."""
    return Resources(_cores(), _memory(), _gpus())


def demand_of(op: str, memory: int, resources: Resources) -> Demand:
    """What a step needs; never more than there is, so that a step too large for the limits runs alone.

    Args:
        op: Its operation.
        memory: Bytes, as estimated.
        resources: What the build may use.
    """
    operation = OPERATIONS[op]
    cores = resources.cores if operation.whole_machine else max(1, resources.cores // 2)
    gpus = min(1, len(resources.gpus)) if operation.takes_gpu else 0
    return Demand(cores, min(memory, resources.memory), gpus)


def fits(demand: Demand, running: Mapping[str, Demand], resources: Resources) -> bool:
    """Returns whether a step can run beside those that do."""
    return (
        demand.cores + sum(other.cores for other in running.values()) <= resources.cores
        and demand.memory + sum(other.memory for other in running.values()) <= resources.memory
        and demand.gpus + sum(other.gpus for other in running.values()) <= len(resources.gpus)
    )


def first_fitting(
    steps: Iterable[str], demands: Mapping[str, Demand], running: Mapping[str, Demand], resources: Resources
) -> str | None:
    """The first of some steps that can run beside those that do; None if none can.

    The executor starts steps by it, and `makespan` estimates by it.
    """
    if sum(other.cores for other in running.values()) >= resources.cores:
        return None  # however many wait, nothing fits
    return next((step for step in steps if fits(demands[step], running, resources)), None)


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # What the user allows numerical libraries anywhere holds here, too.
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable, max(1, int(allowed))) if allowed.isdecimal() else usable


def _memory() -> int:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _CGROUP_MEMORY.read_text(encoding="ascii").strip()
    except OSError:
        return installed
    return min(installed, int(limit)) if limit.isdecimal() else installed


def _gpus() -> tuple[int, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(int(number) for number in visible.split(",") if number.strip().isdecimal())
    devices = Path("/dev")
    names = (entry.name for entry in devices.iterdir()) if devices.is_dir() else iter(())
    return tuple(sorted(int(name.removeprefix("nvidia")) for name in names if _GPU.fullmatch(name)))
