"""Work in a process of its own ends within its bounds, whatever it meets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from colbuild.confined import Bounds, Task, confined
from colbuild.errors import BuildError

BOUNDS = Bounds(seconds=0.5, memory=200_000_000)


def counted(beat: Callable[[], None], most: int) -> Iterator[int]:
    yield from range(most)


def beating(beat: Callable[[], None]) -> Iterator[str]:
    for _ in range(8):
        time.sleep(0.1)
        beat()
    yield "done"


def hanging(beat: Callable[[], None]) -> Iterator[None]:
    yield None
    time.sleep(60)


def eating(beat: Callable[[], None]) -> Iterator[int]:
    yield len(bytearray(10**9))


def crashing(beat: Callable[[], None]) -> Iterator[None]:
    os.abort()
    yield None


def failing(beat: Callable[[], None]) -> Iterator[None]:
    raise KeyError("vocab")
    yield None


def refusing(beat: Callable[[], None]) -> Iterator[None]:
    raise BuildError("no", hint="try another")
    yield None


def writing(beat: Callable[[], None], path: str) -> Iterator[None]:
    with open(path, "w") as file:  # noqa: PTH123
        file.write("x")
    yield None


@pytest.fixture(params=[True, False], ids=["forked", "started"])
def tried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("colbuild.confined._has_one_thread", lambda: request.param)
    return lambda function, **given: list(confined(Task(__name__, function, given, "the file x", "copy it"), BOUNDS))


def test_values_come_as_they_are_made(tried):
    assert tried("counted", most=3) == [0, 1, 2]
    assert tried("beating") == ["done"]


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("hanging", "the file x takes longer than 0.5 s, the limit"),
        ("eating", "the file x needs more than 200.0 MB of memory, the limit"),
        ("crashing", r"the file x ends the process that reads it \(SIGABRT\)"),
        ("failing", "the file x cannot be used: KeyError: 'vocab'"),
        ("refusing", "^no\nhint: try another$"),
    ],
)
def test_whatever_happens_is_one_kind_of_error(function, told, tried):
    with pytest.raises(BuildError, match=told) as caught:
        tried(function)
    assert caught.value.hint in ("copy it", "try another")


def test_nothing_is_written(tried, tmp_path):
    with pytest.raises(BuildError, match="OSError"):
        tried("writing", path=str(tmp_path / "x"))


def test_a_child_ends_with_what_asked_for_it():
    # Other tests of this process may have children of their own.
    before = {child.pid for child in psutil.Process().children()}
    values = confined(Task(__name__, "counted", {"most": 10**9}, "x"), BOUNDS)
    assert next(values) == 0
    assert {child.pid for child in psutil.Process().children()} > before
    values.close()
    assert {child.pid for child in psutil.Process().children()} <= before
