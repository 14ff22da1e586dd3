"""The process of one step: its output goes to its log, its events and its outcome to the build."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from colbuild.errors import EXIT_FAILED, ColbuildError, StoppedError
from colbuild.events import Event, Listener
from colbuild.process import end_with
from colbuild.run.process.environment import prepare_process
from colbuild.run.process.failures import UnexpectedError, is_transient
from colbuild.run.process.job import Failed, InputLost, Job, Outcome, Stopped
from colbuild.run.process.perform import LostInputError, perform
from colbuild.run.process.spinning import let_threads_spin, watch

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def work(job: Job, connection: Connection, parent: int) -> None:
    """Carries out a job and ends the process; the log and the connection have all of it.

    A first SIGTERM asks the step to stop at its next boundary. If the nursery is gone, so is the build: the process ends.
    """
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_with(parent)
    _write_to(job)
    _limit(job)

    def listener(event: Event) -> None:
        connection.send(event)

    started = time.monotonic()
    outcome = outcome_of(job, listener, asked.is_set, traceback.print_exception)
    _note(f"{type(outcome).__name__.lower()} after {time.monotonic() - started:.1f} s")
    connection.send(outcome)
    connection.close()
    # Threads of libraries may still wait for work; nothing that they hold is needed any more.
    os._exit(0)


def outcome_of(
    job: Job, listener: Listener, stopping: Callable[[], bool], tell: Callable[[BaseException], None]
) -> Outcome:
    """Carries out a job; whatever it raises is an outcome too, and `tell` is given what ends it as failed."""
    try:
        return perform(job, listener, stopping)
    except StoppedError as error:
        return Stopped(error.message)
    except LostInputError as error:
        return InputLost(error.role, error.message)
    except ColbuildError as error:
        tell(error)
        unexpected = isinstance(error, UnexpectedError)
        return Failed(error.message, error.hint, error.exit_code, is_transient(error), unexpected)
    except Exception as error:  # noqa: BLE001  (the build must hear of it, whatever it is)
        tell(error)
        message = f"an unexpected {type(error).__name__}: {error}"
        return Failed(message, None, EXIT_FAILED, transient=True, unexpected=True)


class _Log(io.FileIO):
    """The file behind what a step prints. A full disk loses the rest of it; that fails no step, nor hides its outcome."""

    def write(self, content: ReadableBuffer, /) -> int:
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes


def _write_to(job: Job) -> None:
    """What the step and its libraries print goes to its log, also from threads and from C."""
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666)
    except OSError:
        # Never over the build's own display.
        descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout, sys.stderr = _text(1), _text(2)
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    _note(f"{job.step.id}, {now}, process {os.getpid()}, {job.threads} threads")


def _text(descriptor: int) -> io.TextIOWrapper:
    binary = io.BufferedWriter(_Log(descriptor, "w", closefd=False))
    return io.TextIOWrapper(binary, encoding="utf-8", errors="replace", line_buffering=True)


def _note(line: str) -> None:
    """A line of our own in the log."""
    sys.stdout.write(f"-- {line}\n")
    sys.stdout.flush()


def _limit(job: Job) -> None:
    """Keeps libraries to the cores and GPUs of this step."""
    # The build's environment, which this process has now, is not the nursery's: the same settings are made again.
    let_threads_spin()
    prepare_process()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(job.threads)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(number) for number in job.gpus)
    if "torch" in sys.modules:
        import torch

        # It read the environment when the nursery imported it.
        torch.set_num_threads(job.threads)
        watch(job.threads)
