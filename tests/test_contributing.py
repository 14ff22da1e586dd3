"""CONTRIBUTING.md, the Makefile and .ci/run name the same commands."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.helpers.project import ROOT

GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
DEFAULTS = dict(re.findall(r"^([A-Z]+) \?= (.*)$", MAKEFILE, re.MULTILINE))


def targets() -> dict[str, list[str]]:
    """Each target's commands, with the variables' defaults."""
    found: dict[str, list[str]] = {}
    for name, body in re.findall(r"^([a-z-]+):[^\n]*\n((?:\t[^\n]*\n)*)", MAKEFILE, re.MULTILINE):
        commands = [line.strip() for line in body.splitlines()]
        for variable, value in DEFAULTS.items():
            commands = [command.replace(f"$({variable})", value) for command in commands]
        found[name] = commands
    return found


def rows() -> dict[str, list[str]]:
    """The commands that the guide's tables name beside each target."""
    lines = [line.split(" | ") for line in GUIDE.splitlines() if line.startswith("|") and "`make " in line]
    return {re.findall(r"`make ([a-z-]+)", cells[-1])[0]: re.findall(r"`([^`]+)`", cells[-2]) for cells in lines}


def test_the_guide_names_every_target():
    named = set(re.findall(r"`make ([a-z-]+)", GUIDE))
    assert named == set(targets()) - {"help"}
    assert set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split()) == set(targets())


@pytest.mark.parametrize("target", sorted(set(rows()) - {"check", "golden", "schemas"}))
def test_a_target_runs_the_commands_that_the_guide_names(target):
    assert targets()[target] == rows()[target]


def test_ci_runs_the_same_checks():
    ours = [command for name in ("lint", "types", "contracts") for command in targets()[name]]
    assert [line for line in CI if line.split(" ")[0] in ("ruff", "mypy", "lint-imports")] == ours
    assert re.search(r"^check: lint types contracts test ", MAKEFILE, re.MULTILINE)
    assert targets()["test"] == ["pytest"]
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("&& pytest\n") == 1


def test_the_target_for_golden_files_runs_every_test_that_writes_them():
    [named] = re.findall(r"^GOLDEN := (.*)$", MAKEFILE, re.MULTILINE)
    writers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"tests.helpers.golden import|COLBUILD_GOLDEN", path.read_text(encoding="utf-8"))
    }
    kept_by_hand = {"tests/plan/test_golden_keys.py", "tests/test_contributing.py"}
    assert set(named.split()) == writers - kept_by_hand


def test_every_benchmark_variable_and_schema_exists():
    assert (ROOT / "tests" / "benchmarks" / f"{DEFAULTS['NAME']}.py").exists()
    assert (ROOT / DEFAULTS["T"]).exists()
    [kinds] = re.findall(r"for kind in ([a-z ]+);", MAKEFILE)
    assert {f"{kind}.v1.json" for kind in kinds.split()} == {
        path.name for path in (ROOT / "docs" / "schema").glob("*.json")
    }


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_lists_its_targets():
    ran = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in ran.stdout.splitlines()] == list(targets())
