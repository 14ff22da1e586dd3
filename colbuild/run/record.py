"""The record of a build: every event as a JSON line in the store, with the time it came."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colbuild.run.events import Event, Listener, SourceProgress, StepProgress, event_to_json
from colbuild.store.files import storage_errors


@contextmanager
def recorded(listener: Listener, folder: Path) -> Iterator[Listener]:
    """A listener that also writes what it hears to a new file in `folder`; progress is left out, it would be most of it.

    Raises:
        BuildError: The file cannot be written.
    """
    started = time.time()
    name = time.strftime("%Y%m%dT%H%M%S", time.gmtime(started)) + f"-{time.time_ns() % 1_000_000:06d}.jsonl"
    with storage_errors(folder), (folder / name).open("x", encoding="utf-8") as file:

        def hear(event: Event) -> None:
            if not isinstance(event, StepProgress | SourceProgress):
                line = {**event_to_json(event), "time": round(time.time(), 3)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
            listener(event)

        yield hear
