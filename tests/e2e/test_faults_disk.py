"""Fault 4: the disk is full, at whatever a step is. A clear error, a sound store, and the build goes on once there is space."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.builder import MOMENTS
from tests.e2e.builds import Ended, assert_sound, made, printed
from tests.store.little import content

KIB = 1024
MIB = 1024 * KIB
DISK = 48 * MIB

FREE = [*range(9), 12, 16, 24, *(2**power for power in range(5, 13))]
"""KiB that are left, from nothing to more than any step writes."""

STEPS = {
    "source": "source ansnet",
    "corpus": "corpus train",
    "order": "order ansnet",
    "distill": "distill large",
    "interpolate": "interpolate middle",
    "recover": "recover shaped",
    "evaluate": "evaluate large",
    "export": "export middle/tiny-int8",
}
"""A step of each kind."""


class Disk:
    """A small file system, and a file that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ballast = folder / "ballast"

    def leave(self, free: int) -> None:
        """Leaves so many KiB free."""
        self.empty()
        with self.ballast.open("wb", buffering=0) as file:
            size = self.free() - free * KIB
            while size > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                    break
                except OSError as error:
                    # What describes the file's blocks needs some, too.
                    assert error.errno == errno.ENOSPC
                    size -= KIB
        while self.free() < free * KIB:
            os.truncate(self.ballast, self.ballast.stat().st_size - KIB)
        assert free * KIB <= self.free() < (free + 8) * KIB

    def free(self) -> int:
        """Bytes."""
        return shutil.disk_usage(self.folder).free

    def empty(self) -> None:
        """Gives the space back."""
        self.ballast.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A real file system of some megabytes."""
    folder = tmp_path_factory.mktemp("disk")
    image, place = folder / "image", folder / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK)
    for command in (
        ["mkfs.ext4", "-q", "-m", "0", "-b", "1024", "-O", "^has_journal", str(image)],
        ["mount", "-o", "loop", str(image), str(place)],
    ):
        if shutil.which(command[0]) is None or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
    yield Disk(place)
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def project(disk, good):
    """The finished project, on the small disk."""
    folder = good.copy(disk.folder / "project")
    yield folder
    disk.empty()
    shutil.rmtree(folder)


def forget(store: Path, step: str) -> None:
    """Takes a step's result out of a store, as if it had never run."""
    for path in store.glob("actions/*/*.json"):
        record = json.loads(path.read_bytes())
        if record["step"] == step:
            shutil.rmtree(store / "objects" / record["output"][:2] / record["output"])
            path.unlink()


FULL = ("the disk is full", "of disk for the store")
"""What a step says that finds no room, and what a build says that sees so before its first step."""


def assert_refused(ended: Ended, *whats: str) -> None:
    """It failed, and says why in words."""
    assert ended.code == 1, ended
    assert ended.err.startswith("error: "), ended.err
    assert any(what in ended.err for what in whats), ended.err
    assert "Traceback" not in ended.err + ended.out
    assert "unexpected" not in ended.err


def assert_goes_on(builder, good, project: Path, *options: str) -> list[str]:
    """The next build ends well, with the right bytes; returns the steps that it ran."""
    ended = builder.build(project, "--json", *options)
    assert ended.code == 0, ended.err
    assert made(project) == good.made
    assert_sound(project / ".colbuild")
    assert not list((project / ".colbuild/quarantine").iterdir())
    return [event["step"] for event in printed(ended.out) if event["event"] == "step_finished"]


@pytest.mark.slow
@pytest.mark.parametrize("op", STEPS)
def test_full_disk_stops_a_step_and_the_build_goes_on_with_space(builder, good, disk, project, op, count):
    assert builder.build(project).code == 0
    forget(project / ".colbuild", STEPS[op])
    refused = 0
    for free in FREE:
        disk.leave(free)
        ended = builder.build(project, "--json")
        if ended.code == 0:
            break
        assert_refused(ended, *FULL)
        refused += 1
    assert refused, "it was full when the step ran"
    if op in ("distill", "recover"):
        assert "no checkpoint: no space left on device" in ended.out, "that alone ends no training"
    disk.empty()
    ran = assert_goes_on(builder, good, project)
    assert ran == ([STEPS[op]] if ended.code else [])
    count(builds_refused=refused, enough_KiB=free)


@pytest.mark.slow
@pytest.mark.parametrize("op", STEPS)
def test_limit_on_the_size_of_files_stops_a_step_and_the_build_goes_on_without(builder, good, tmp_path, op, count):
    project = good.copy(tmp_path / "project")
    assert builder.build(project).code == 0
    digest = good.made.steps[STEPS[op]]
    files = project.glob(f".colbuild/objects/*/{digest}/files/**/*")
    largest = max(path.stat().st_size for path in files if path.is_file())
    forget(project / ".colbuild", STEPS[op])
    limits = [largest - 1, largest // 2, 100]
    for limit in limits:
        assert_refused(builder.build(project, "--json", limit=limit), "a limit on the size of files is reached")
    assert assert_goes_on(builder, good, project) == [STEPS[op]]
    count(builds_refused=len(limits))


@pytest.mark.slow
def test_disk_that_is_full_while_outputs_are_placed_leaves_none_half_made(builder, good, disk, project, count):
    assert builder.build(project).code == 0
    refused = 0
    for free in (*range(0, 9, 2), *range(16, 12_000, 512)):
        shutil.rmtree(project / "out", ignore_errors=True)
        disk.leave(free)
        ended = builder.build(project, "--json")
        found = content(project / "out") if (project / "out").exists() else {}
        assert all(good.made.out[name] == text for name, text in found.items()), "no wrong byte, no draft"
        if ended.code == 0:
            break
        assert_refused(ended, *FULL)
        refused += 1
        disk.empty()
        if refused % 4 == 0:
            assert assert_goes_on(builder, good, project) == []
    assert refused
    disk.empty()
    assert assert_goes_on(builder, good, project) == []
    count(builds_refused=refused, enough_KiB=free)


@pytest.mark.slow
@pytest.mark.parametrize("moment", sorted(MOMENTS))
def test_disk_that_fills_at_a_chosen_moment(builder, good, disk, project, moment, count):
    """Such as between the rename of a result and the record of its action; unlike a kill, the step goes on and finds out."""
    assert builder.build(project).code == 0
    forget(project / ".colbuild", STEPS["distill"])
    forget(project / ".colbuild", STEPS["export"])
    shutil.rmtree(project / "out")
    ended = builder.build(project, "--json", moment=moment, fill=disk.ballast)
    assert disk.ballast.exists(), "the moment came"
    if ended.code:
        assert_refused(ended, *FULL)
    disk.empty()
    ran = assert_goes_on(builder, good, project)
    assert set(ran) <= {STEPS["distill"], STEPS["export"]}
    count(exit_code=ended.code, steps_run_after=len(ran))
