"""Fault 2 on a whole family: whatever kind of file is damaged in its store, it is found, named and healed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.builds import SPEC, assert_sound, made, printed
from tests.helpers.project import command
from tests.store.little import DAMAGES, content, damage

PLACED = ("evaluate", "order", "corpus", "source")
"""Operations whose results do not get into `out/`."""

RECOVERED_FROM = ("distill large", "interpolate shaped")
"""Nor do these: what is recovered is, and of a model that teaches or is trained a step reads what a silent change left."""


def kinds(store: Path, without: frozenset[str] = frozenset()) -> dict[tuple[str, ...], Path]:
    """One file of each kind in a store, empty ones left out: kind -> path. Each operation's each file is a kind.

    Results `without` are left out, too.
    """
    operations = {}
    for path in sorted(store.glob("actions/*/*.json")):
        record = json.loads(path.read_bytes())
        operations.setdefault(record["output"], record["op"])
    found: dict[tuple[str, ...], Path] = {}
    for path in sorted(path for path in store.rglob("*") if path.is_file() and path.stat().st_size):
        parts = path.relative_to(store).parts
        if without & set(parts):
            continue
        if parts[0] == "objects":
            kind = ("objects", operations[parts[2]], *parts[3:])
        elif parts[0] in ("memo", "downloads"):
            kind = parts[:2]
        else:
            kind = parts[:1]
        # A project whose identity was damaged is another one, with a root of its own; nobody writes the former one again.
        newer = kind == ("roots",) and kind in found and path.stat().st_mtime_ns > found[kind].stat().st_mtime_ns
        if newer or kind not in found:
            found[kind] = path
    return found


def named(kind: tuple[str, ...]) -> str | None:
    """What a build or `cache verify` has to say when this kind of file is damaged; None: nothing, it is only made again."""
    if kind[0] != "objects" or kind[2] == "stat.json":
        return None
    return "/".join(kind[3:]) if kind[2] == "files" else "list of files"


def rounds(found: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """What to damage before each build: a way, and kinds of files, at most one of each operation's results.

    Weights in every way, since they are what matters; of the others each in one, in turn. What is not of a result is alone.
    """
    pairs = [
        (way, kind)
        for number, kind in enumerate(sorted(found))
        for way in (
            DAMAGES if kind[-1].endswith(".safetensors") and kind[1] == "distill" else (DAMAGES[number % len(DAMAGES)],)
        )
    ]
    turns = Counter[tuple[str, ...]]()
    together: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for way, kind in pairs:
        if kind[0] == "objects":
            turn = turns[way, kind[1]]
            turns[way, kind[1]] += 1
            together.setdefault((way, str(turn)), []).append(kind)
        else:
            together[way, *kind] = [kind]
    for (way, *_), kinds_of_files in together.items():
        yield way, kinds_of_files


def missing(words: Sequence[str], text: str) -> list[str]:
    """Words that a text says less often than they are listed."""
    return [word for word, times in Counter(words).items() if text.count(word) < times]


@pytest.mark.slow
def test_each_kind_of_file_in_a_store_is_found_damaged_and_healed(builder, good, tmp_path, monkeypatch, capsys, count):
    project = good.copy(tmp_path / "project")
    store, colbuild = project / ".colbuild", command(project, monkeypatch, capsys)
    assert builder.build(project).code == 0
    found = kinds(store)
    assert {kind[1] for kind in found if kind[0] == "objects"} >= {"source", "corpus", "order", "distill", "recover"}
    ways, ran, told = Counter(), 0, 0
    for way, damaged in rounds(found):
        paths = kinds(store)
        for kind in damaged:
            damage(paths[kind], way)
        words = [word for kind in damaged if (word := named(kind)) is not None]
        if way == "silent flip" and words:
            verified = colbuild("cache", "verify")
            assert verified.code == 1, (damaged, verified)
            assert missing(words, verified.out + verified.err) == [], (damaged, verified)
        ended = builder.build(project, "--json")
        assert ended.code == 0, (damaged, way, ended.err)
        events = printed(ended.out)
        if way != "silent flip":
            notices = " ".join(event["message"] for event in events if event["event"] == "notice")
            assert missing(words, notices) == [], (damaged, way, notices)
            told += len(words)
        assert content(project / "out") == good.made.out, (damaged, way)
        assert made(project) == good.made, (damaged, way)
        ways[way] += len(damaged)
        ran += sum(event["event"] == "step_finished" for event in events)
    assert_sound(store)
    assert builder.build(project, "--json").out.count("step_started") == 0
    count(
        kinds_of_files=len(found),
        files_damaged=sum(ways.values()),
        how=", ".join(f"{number} {way}" for way, number in sorted(ways.items())),
        named_by_the_build=told,
        steps_run_again=ran,
        set_aside=len(list((store / "quarantine").iterdir())),
        wrong_bytes_in_out=0,
    )


@pytest.mark.slow
def test_damage_without_a_trace_does_not_get_into_the_outputs(builder, good, tmp_path, count):
    """Every file of every placed result at once, with times put back, just before they are placed anew."""
    project = good.copy(tmp_path / "project")
    assert builder.build(project).code == 0
    records = [json.loads(path.read_bytes()) for path in (project / ".colbuild").glob("actions/*/*.json")]
    read = frozenset(record["output"] for record in records if record["step"] in RECOVERED_FROM)
    damaged = [
        path
        for kind, path in kinds(project / ".colbuild", without=read).items()
        if kind[0] == "objects" and kind[1] not in PLACED and kind[2] == "files"
    ]
    assert damaged
    for path in damaged:
        damage(path, "silent flip")
    shutil.rmtree(project / "out")
    ended = builder.build(project, "--json")
    assert ended.code == 0, ended.err
    assert made(project) == good.made
    assert_sound(project / ".colbuild")
    count(files_damaged=len(damaged), steps_run_again=ended.out.count('"step_finished"'), wrong_bytes_in_out=0)


@pytest.mark.slow
def test_outputs_that_somebody_damaged_are_put_right_and_what_was_there_is_kept(builder, good, tmp_path, count):
    project = good.copy(tmp_path / "project")
    assert builder.build(project).code == 0
    files = sorted(path for path in (project / "out").rglob("*") if path.is_file() and path.stat().st_nlink == 1)
    for number, path in enumerate(files):
        damage(path, ("flip", "truncation", "deletion")[number % 3])
    ended = builder.build(project, "--json")
    assert ended.code == 0, ended.err
    found = content(project / "out")
    assert {name: text for name, text in found.items() if ".kept-" not in name} == good.made.out
    assert any(".kept-" in name for name in found)
    assert '"step_started"' not in ended.out
    count(files_damaged=len(files), steps_run_again=0)


def test_status_and_plan_tell_of_damage_and_leave_it(good, tmp_path, monkeypatch, capsys):
    project = good.copy(tmp_path / "project")
    colbuild = command(project, monkeypatch, capsys)
    damage(kinds(project / ".colbuild")[("objects", "distill", "files", "model.safetensors")], "truncation")
    before = content(project)
    planned = colbuild("plan", SPEC)
    assert planned.code == 0
    assert "its result is no longer in the store" in planned.out
    assert colbuild("status", SPEC).code == 0
    assert content(project) == before


@pytest.mark.parametrize("name", ["format", "format.copy"])
def test_damaged_mark_of_a_store_is_healed_by_a_build_with_nothing_to_do(builder, good, tmp_path, name):
    """Else the other one could be damaged before anything has to be built, and the store would be refused."""
    project = good.copy(tmp_path / "project")
    expected = (project / ".colbuild" / name).read_bytes()
    damage(project / ".colbuild" / name, "flip")
    assert builder.build(project).code == 0
    assert (project / ".colbuild" / name).read_bytes() == expected
