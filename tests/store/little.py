"""A little build in three steps that uses a store as the executor does, and ways to damage a file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from colbuild.store import ActionRecord, DamagedTreeError, Store
from tests.store.processes import RECORD

NEEDS = {"source": (), "model": ("source",), "package": ("model", "source")}
"""Step -> the steps whose results it reads."""

DAMAGES = ("flip", "silent flip", "truncation", "deletion")


class LostInputError(Exception):
    """The result of this step is gone."""


def build(store: Store, out: Path, version: str = "1", later: float = 0.0) -> list[str]:
    """Builds and places every step; returns those that ran. Results carry times that lie `later` by these seconds."""
    ran: list[str] = []
    done: dict[str, ActionRecord] = {}
    waiting = list(NEEDS)
    for _ in range(100):
        if not waiting:
            return ran
        step = waiting[0]
        try:
            done[step] = _bring(store, step, done, version, later, ran)
            store.place(done[step].output, out / step)
        except DamagedTreeError:
            continue
        except LostInputError as lost:
            waiting.insert(0, str(lost))
            continue
        waiting.pop(0)
    raise AssertionError("the build does not come to an end")


def _bring(
    store: Store, step: str, done: dict[str, ActionRecord], version: str, later: float, ran: list[str]
) -> ActionRecord:
    inputs = {needed: done[needed].output for needed in NEEDS[step]}
    key = hashlib.sha256(repr((step, version, inputs)).encode()).hexdigest()
    hit = store.lookup(key)
    if hit is None:
        store.prepare()
        with store.hold(key, lambda: None):
            hit = store.lookup(key)
            if hit is None:
                store.set_aside_damaged(key)
                return _run(store, step, key, inputs, version, later, ran)
    store.note_step("fam", hit)
    return hit


def _run(
    store: Store, step: str, key: str, inputs: dict[str, str], version: str, later: float, ran: list[str]
) -> ActionRecord:
    for needed, digest in inputs.items():
        if store.check_content(digest) is not None:
            raise LostInputError(needed)
    if store.remembered("config", key) is None:
        store.remember("config", key, {"layers": 30})
    assert store.remembered("config", key) == {"layers": 30}
    with store.draft() as draft:
        read = b"".join((store.files(digest) / "weights").read_bytes() for digest in inputs.values())
        (draft / "files/weights").write_bytes(hashlib.sha256(read + step.encode() + version.encode()).digest() * 100)
        (draft / "files/config.json").write_text(f'{{"step": "{step}"}}')
        for path in (draft / "files").iterdir():
            status = path.stat()
            os.utime(path, (status.st_atime + later, status.st_mtime + later))
        output = store.publish(draft).digest
    record = replace(RECORD, key=key, step=step, inputs=inputs, output=output, built_at=RECORD.built_at + later)
    store.record("fam", record)
    ran.append(step)
    return record


def damage(path: Path, way: str) -> None:
    """Damages a file, as somebody with too many rights or a failing disk does."""
    status = path.stat()
    path.parent.chmod(0o755)
    if way == "deletion":
        path.unlink()
        return
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    if way == "truncation":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    # The same file, not another under its name: where it is linked, the damage shows there too.
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    if way == "silent flip":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
