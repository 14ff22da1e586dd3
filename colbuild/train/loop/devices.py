"""The devices of a training: a CPU, a GPU, or several with one process for each."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from accelerate import Accelerator
from torch.multiprocessing.spawn import ProcessRaisedException, start_processes

from colbuild.errors import BuildError, ColbuildError, StoppedError
from colbuild.process import end_with
from colbuild.spec.model.precision import COMPUTING, FORWARD

_RAISED: Final = {kind.__name__: kind for kind in (BuildError, StoppedError)}
"""What a process of several may raise and the others' parent raises again."""


def processes() -> int:
    """Returns the number of processes of a training: one for each GPU that this process may use, else one."""
    return max(1, torch.cuda.device_count())


def open_accelerator() -> Accelerator:
    """The device of this process, and its part among the others.

    Precision is no matter of Accelerate's: its autocast would cast weights at every use (see `colbuild.train.loop.student`).
    """
    # Several processes on CPUs are joined by gloo only where that is asked for.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Accelerator(mixed_precision="no", cpu=several and not torch.cuda.is_available())


def computing_type(precision: str, device: torch.device) -> torch.dtype:
    """Returns the type of forward and backward passes.

    A CPU that has no instructions for bf16 computes in fp32 instead: it would only be slower in bf16, and less exact.
    """
    dtype: torch.dtype = getattr(torch, COMPUTING[precision].torch)
    if dtype is torch.bfloat16 and device.type == "cpu" and not _cpu_has_bf16():
        return torch.float32
    return dtype


def forward_type() -> torch.dtype:
    """Returns the type of models that are not trained: bf16, or fp32 on a CPU without bf16 instructions."""
    return computing_type(FORWARD, torch.device("cpu"))


def _cpu_has_bf16() -> bool:
    # What oneDNN, which multiplies torch's matrices on a CPU, asks itself.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def side_by_side(work: Callable[[], None], count: int) -> None:
    """Runs `work` in so many processes, forked from this one, which `open_accelerator` makes one training.

    Args:
        work: Called in each of them. It must not have been using a GPU before.
        count: How many; with one it is called here.

    Raises:
        ColbuildError: What one of them raised.
        BuildError: One of them ended without a word.
    """
    if count == 1:
        work()
        return
    with tempfile.TemporaryDirectory() as folder:
        outcome, port = Path(folder) / "raised", _free_port()
        try:
            start_processes(_one_of, args=(work, count, port, outcome, os.getpid()), nprocs=count, start_method="fork")  # type: ignore[no-untyped-call]
        except ProcessRaisedException as error:
            if outcome.exists():
                told = json.loads(outcome.read_bytes())
                raise _RAISED[told["type"]](told["message"], hint=told["hint"]) from None
            raise BuildError(f"a process of the training ended: {str(error).strip().splitlines()[-1]}") from error


def _one_of(index: int, work: Callable[[], None], count: int, port: int, outcome: Path, parent: int) -> None:
    end_with(parent)
    os.environ |= {
        "RANK": str(index),
        "LOCAL_RANK": str(index),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        work()
    except ColbuildError as error:
        draft = outcome.with_suffix(f".{index}")
        told = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
        draft.write_text(json.dumps(told if told["type"] in _RAISED else {**told, "type": "BuildError"}), "utf-8")
        draft.replace(outcome)
        raise


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
