"""Converts articles to plain text in several processes, in order.

Plain child processes that speak lines of JSON, not `multiprocessing`: that would run the user's main script again in
each child (or fork a process full of torch's threads), and a build must work from any script or notebook.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from typing import Final

from colbuild.errors import BuildError
from colbuild.fetch.texts.formats.wikitext import plain_text
from colbuild.process import python_command, unheard_by_children

_BATCH: Final = 1 << 18
"""Characters of wikitext that travel to a process at once."""

_MOST: Final = 16
_SERVE: Final = "colbuild.fetch.texts.formats.wikitext_workers:serve"

_Process = subprocess.Popen[str]


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def plain_texts(articles: Iterable[str], file_names: frozenset[str]) -> Iterator[str]:
    """The plain text of each article, in order; what comes out does not depend on the number of processes.

    A short dump is worth no processes: they start with the second batch.

    Raises:
        BuildError: A process died.
    """
    batches = _batches(articles)
    first, second = next(batches, None), next(batches, None)
    if first is not None:
        yield from [plain_text(article, file_names) for article in first]
    if second is None:
        return
    with _pool(min(_MOST, cores()), file_names) as (pool, idle):
        waiting: deque[Future[list[str]]] = deque([pool.submit(_ask, idle, second)])
        for batch in batches:
            waiting.append(pool.submit(_ask, idle, batch))
            if len(waiting) > 2 * cores():
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _batches(articles: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for article in articles:
        batch.append(article)
        size += len(article)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@contextmanager
def _pool(count: int, file_names: frozenset[str]) -> Iterator[tuple[ThreadPoolExecutor, SimpleQueue[_Process]]]:
    """Threads, and as many idle processes for them to talk to; at the end, however it comes, the processes are gone."""
    idle: SimpleQueue[_Process] = SimpleQueue()
    processes: list[_Process] = []
    with ExitStack() as stack:
        stack.callback(_close, processes)
        pool = ThreadPoolExecutor(count, thread_name_prefix="corpus")
        stack.callback(pool.shutdown, cancel_futures=True)
        stack.callback(_kill, processes)  # Last in, first out: threads that wait for an answer wait no longer.
        for _ in range(count):
            with unheard_by_children():
                process = subprocess.Popen(  # noqa: S603 (our own interpreter and code)
                    python_command(_SERVE),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                )
            processes.append(process)
            _write(process, sorted(file_names))
            idle.put(process)
        yield pool, idle


def _kill(processes: Sequence[_Process]) -> None:
    for process in processes:
        process.kill()


def _close(processes: Sequence[_Process]) -> None:
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # What could not be sent to a dead process is of no use now.
                if pipe is not None:
                    pipe.close()
        process.wait()


def _ask(idle: SimpleQueue[_Process], batch: list[str]) -> list[str]:
    process = idle.get()
    try:
        _write(process, batch)
        answer = process.stdout.readline() if process.stdout is not None else ""
        if not answer.endswith("\n"):
            raise _died(process)
        texts: list[str] = json.loads(answer)
        return texts
    finally:
        idle.put(process)


def _write(process: _Process, value: list[str]) -> None:
    if process.stdin is None:
        raise _died(process)
    try:
        process.stdin.write(json.dumps(value) + "\n")
        process.stdin.flush()
    except (BrokenPipeError, ValueError) as error:
        raise _died(process) from error


def _died(process: _Process) -> BuildError:
    code = process.wait()
    return BuildError(
        f"a process that extracts articles ended with exit code {code}",
        hint="free memory or run the build again; the system kills processes when memory runs out",
    )


def serve() -> None:
    """A child process: the names of file namespaces come first, then batches of articles; ends with its input."""
    lines = iter(sys.stdin.readline, "")
    file_names = frozenset(json.loads(next(lines)))
    for line in lines:
        sys.stdout.write(json.dumps([plain_text(article, file_names) for article in json.loads(line)]) + "\n")
        sys.stdout.flush()
