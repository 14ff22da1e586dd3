"""Other processes for the tests of the store: one that holds a lock, one that dies, several that build at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colbuild.store import ActionRecord, Store, open_store, outputs
from colbuild.store.locks import hold, scratch_path

RECORD = ActionRecord("k" * 64, "distill a76", "distill", {"tokens": 1}, {"corpus": "c" * 64}, "0" * 64, 0, 1.5, 1.7e9)


def fill(store: Store, files: dict[str, bytes]) -> str:
    """Publishes a tree; returns its digest."""
    store.prepare()
    with store.draft() as draft:
        for name, content in files.items():
            path = draft / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return store.publish(draft).digest


@contextmanager
def other(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, once it has said "ready"; it goes on when it is written to, and is killed at the end."""
    command = [sys.executable, "-m", "tests.store.processes", *arguments]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def let_go(process: subprocess.Popen[str]) -> None:
    """Lets a process go on."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


def _hold(path: str) -> None:
    with hold(Path(path)):
        _ready()


def _scratch(folder: str) -> None:
    with scratch_path(Path(folder)) as path:
        path.mkdir()
        (path / "half-written").write_text("half")
        path.chmod(0o555)
        _ready()


def _place(root: str, digest: str, target: str) -> None:
    """Comes to a halt in the middle of placing a tree."""

    def half(_: Path, place: Path, __: int) -> None:
        place.write_bytes(b"half")
        _ready()

    outputs.put = half
    open_store(Path(root)).place(digest, Path(target))


def _publish(root: str, rounds: str) -> None:
    store = open_store(Path(root))
    _ready()
    for number in range(int(rounds)):
        fill(store, {"weights": b"%d" % number * 1000, "sub/config.json": b"{}"})


def _build(root: str, log: str) -> None:
    """What the executor does with one key; says in `log` whether it ran, and whether it waited."""
    store = open_store(Path(root))
    _ready()
    waited: list[str] = []
    store.prepare()
    with store.hold(RECORD.key, lambda: waited.append("waited")):
        found = store.lookup(RECORD.key)
        if found is None:
            time.sleep(0.2)
            output = fill(store, {"weights": b"trained"})
            store.record("fam", ActionRecord(**{**vars(RECORD), "output": output}))
    with Path(log).open("a") as file:
        file.write(" ".join(["cached" if found else "ran", *waited]) + "\n")


if __name__ == "__main__":
    commands = {"hold": _hold, "place": _place, "scratch": _scratch, "publish": _publish, "build": _build}
    commands[sys.argv[1]](*sys.argv[2:])
