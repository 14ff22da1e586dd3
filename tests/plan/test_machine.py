"""How fast the machine is: measured once for each machine, and never a reason to fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from colbuild.plan.cost import machine
from colbuild.plan.cost.machine import (
    CACHE_VARIABLE,
    FORMAT,
    MachineSpeed,
    cache_path,
    machine_speed,
    measure_speed,
    remember,
    this_machine,
)


class Bench:
    """Measures a machine that is faster each time, and counts how often."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> MachineSpeed:
        self.runs += 1
        return MachineSpeed(self.runs * 1e9, self.runs * 1e6)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The file of a cache folder that does not exist yet."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "machine.json"


@pytest.fixture
def bench(cache, monkeypatch) -> Bench:
    bench = Bench()
    monkeypatch.setattr(machine, "measure_speed", bench)
    return bench


def test_a_machine_is_measured_once(bench, cache):
    first = machine_speed()
    assert machine_speed() == first == MachineSpeed(1e9, 1e6)
    assert bench.runs == 1
    assert [path.name for path in cache.parent.iterdir()] == ["machine.json"]


@pytest.mark.parametrize("part", [{"host": "other"}, {"processor": "other"}, {"cores": 999}, {"threads": 999}])
def test_another_machine_is_measured_and_the_first_is_not_forgotten(bench, monkeypatch, part):
    here = this_machine()
    first = machine_speed()
    monkeypatch.setattr(machine, "this_machine", lambda: replace(here, **part))
    assert machine_speed() != first
    monkeypatch.setattr(machine, "this_machine", lambda: here)
    assert machine_speed() == first
    assert bench.runs == 2


def test_machines_are_not_remembered_without_end(cache):
    here = this_machine()
    many = {replace(here, host=f"node{n}"): MachineSpeed(1e9 + n, 1e6) for n in range(100)}
    remember(cache, many)
    hosts = [one["host"] for one in json.loads(cache.read_text())["machines"]]
    assert 1 < len(hosts) < 100
    assert hosts == [f"node{n}" for n in range(100)][-len(hosts) :]


@pytest.mark.parametrize(
    "held",
    [
        "",
        "{",
        "\0",
        "[]",
        "null",
        '{"format": "colbuild.machine.v0", "machines": []}',
        f'{{"format": "{FORMAT}"}}',
        f'{{"format": "{FORMAT}", "machines": 3}}',
        f'{{"format": "{FORMAT}", "machines": [{{"host": []}}]}}',
        f'{{"format": "{FORMAT}", "machines": ["x"]}}',
    ],
)
def test_a_damaged_memory_is_measured_and_written_again(bench, cache, held):
    cache.parent.mkdir()
    cache.write_text(held)
    assert machine_speed() == machine_speed() == MachineSpeed(1e9, 1e6)
    assert bench.runs == 1


@pytest.mark.parametrize("value", [0, -1e9, "fast", None, float("inf"), float("nan")])
def test_a_remembered_number_that_is_no_speed_is_measured_again(bench, cache, value):
    machine_speed()
    held = json.loads(cache.read_text())
    held["machines"][0]["matrices"] = value
    cache.write_text(json.dumps(held))
    assert machine_speed() == MachineSpeed(2e9, 2e6)


def test_a_folder_that_cannot_be_written_means_measuring_each_time(bench, cache):
    cache.parent.write_text("a file where the folder should be")
    assert machine_speed() == MachineSpeed(1e9, 1e6)
    assert machine_speed() == MachineSpeed(2e9, 2e6)
    assert cache.parent.read_text() == "a file where the folder should be"


def test_a_user_without_a_home_is_no_error(bench, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert machine_speed() == MachineSpeed(1e9, 1e6)


def test_it_lies_where_caches_lie(monkeypatch, tmp_path):
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_path() == tmp_path / ".cache/colbuild/machine.json"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_path() == tmp_path / "caches/colbuild/machine.json"


@pytest.mark.parametrize(("asked", "threads"), [("1", 1), ("100000", None), ("0", None), ("", None), ("2,1", None)])
def test_fewer_threads_are_another_machine(monkeypatch, asked, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    here = this_machine()
    assert here.threads == (threads or here.cores)


def test_a_measurement_is_plausible():
    speed = measure_speed()
    assert 1e8 < speed.matrices < 1e15
    assert 1e4 < speed.plain < 1e10
