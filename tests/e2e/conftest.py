"""What the tests of faults share: a way to start builds quickly, a family built without any fault, and their counts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.builds import STEPS, Builder, Made, faults_project, made


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    """Starts builds within milliseconds."""
    with Builder() as one:
        yield one


@dataclass(frozen=True)
class Good:
    """A project whose family was built without any fault, and what came of it. Tests leave it as it is."""

    project: Path
    made: Made

    def copy(self, folder: Path) -> Path:
        """The project elsewhere, for a test to damage."""
        return Path(shutil.copytree(self.project, folder, symlinks=True))


@pytest.fixture(scope="session")
def good(builder: Builder, tmp_path_factory: pytest.TempPathFactory, tiny_inputs: Path) -> Good:
    """The family of the tests of faults, built without one."""
    project = faults_project(tmp_path_factory.mktemp("good") / "project", tiny_inputs)
    ended = builder.build(project, "--json")
    assert ended.code == 0, ended.err
    found = made(project)
    assert len(found.steps) == STEPS
    assert found.out
    return Good(project, found)


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Notes counts of a test, which are shown at the end of the run."""

    def note(**counts: object) -> None:
        for name, value in counts.items():
            record_property(name.replace("_", " "), value)

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Shows the counts of every test that noted some."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    noted = [report for report in reports if report.when == "call" and report.user_properties]
    if noted:
        terminalreporter.section("counts")
    for report in noted:
        counts = ", ".join(f"{name}: {value}" for name, value in report.user_properties)
        terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]} ({report.duration:.0f} s): {counts}")
