"""What this machine lacks for a plan is told before the first step: disk, and memory."""

from __future__ import annotations

import json
import re
from collections import namedtuple
from pathlib import Path

import pytest

from colbuild.plan.cost.machine_resources import Resources
from colbuild.store import space

SPEC = "specs/tiny.yaml"
_Usage = namedtuple("_Usage", "total used free")


@pytest.fixture
def disk(monkeypatch):
    """Says how much is free on every disk."""

    def leave(free: int, total: int = 10**12) -> None:
        monkeypatch.setattr(space.shutil, "disk_usage", lambda _: _Usage(total, 0, free))

    return leave


def planned_disk(colbuild) -> int:
    return json.loads(colbuild("plan", SPEC, "--json").out)["totals"]["disk"]


def test_a_build_that_has_no_room_on_the_disk_is_refused_before_its_first_step(colbuild, project, disk):
    needed = planned_disk(colbuild)
    disk(needed // 4)
    refused = colbuild("build", SPEC)
    assert refused.code == 1
    assert re.search(r"the plan needs about [\d.]+ MB of disk for the store, and [\d.]+ [kM]B are free", refused.err)
    assert "colbuild cache gc" in refused.err
    assert "--store" in refused.err
    assert not (project / ".colbuild/objects").exists()


def test_a_plan_that_has_no_room_on_the_disk_warns(colbuild, disk):
    needed = planned_disk(colbuild)
    assert "of disk" not in colbuild("plan", SPEC).out
    disk(needed - 1)
    planned = colbuild("plan", SPEC)
    assert planned.code == 0
    assert "warning: the plan needs about" in planned.out
    assert any("of disk for the store" in text for text in json.loads(colbuild("plan", SPEC, "--json").out)["warnings"])


def test_a_disk_that_tells_no_size_is_no_reason(colbuild, disk):
    disk(0, total=0)
    assert "of disk for" not in colbuild("plan", SPEC).out


def test_what_is_built_needs_no_room(finished_project, monkeypatch, capsys, disk):
    from tests.helpers.project import command

    folder, _ = finished_project
    run = command(folder, monkeypatch, capsys)
    disk(0)
    assert run("build", SPEC).code == 0


def test_models_on_another_disk_than_the_store_need_room_there(colbuild, disk, monkeypatch):
    needed = planned_disk(colbuild)
    monkeypatch.setattr("colbuild.run.building.capacity.same_file_system", lambda one, other: False)
    disk(needed)
    assert "for models and packages" not in colbuild("plan", SPEC).out
    monkeypatch.setattr(
        "colbuild.run.building.capacity.free_bytes", lambda path: 10**9 if Path(path).name == ".colbuild" else 10**4
    )
    assert "of disk for models and packages" in colbuild("plan", SPEC).out


def test_a_step_that_needs_more_memory_than_the_machine_has_is_a_warning_at_its_recipe(colbuild, monkeypatch):
    assert "of memory" not in colbuild("plan", SPEC).out
    monkeypatch.setattr("colbuild.run.building.plan_questions.machine", lambda: Resources(2, 300_000_000))
    planned = colbuild("plan", SPEC)
    assert planned.code == 0
    told = next(line for line in planned.out.splitlines() if "'distill large'" in line and "of memory" in line)
    assert re.search(r"warning: .*\.yaml:\d+:\d+: .* needs about [\d.]+ MB of memory, and this machine has 300", told)
    assert "micro_batch" in told


def test_a_build_warns_of_memory_too(colbuild, disk):
    built = colbuild("build", SPEC, "--memory", "300MB", "--target", "ansnet")
    assert built.code == 0
    assert "'source ansnet' needs about" in built.out + built.err
