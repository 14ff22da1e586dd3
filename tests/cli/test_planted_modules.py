"""Modules planted in a project and in a package: no command runs them, in no process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.export.helpers import export
from tests.helpers.project import ROOT, copy_project
from tests.helpers.tiny import make_tiny_model

TRAP = 'import os\nwith open(os.environ["CANARY"], "a") as file:\n    file.write(__file__ + " ran\\n")\n'

_EVERY = """
import json, os, sys
from colbuild.cli.app import run_command
print(json.dumps({" ".join(arguments): run_command(arguments) for arguments in json.loads(sys.argv[1])}), file=sys.stderr)
"""
"""What the command `colbuild` does, for many commands in one process. Their own processes are new ones."""

FAMILY = """
apiVersion: colbuild/v1
name: planted
ansnet: {source: ./.tiny/ansnet}
data: {train: {source: ./.tiny/corpus.txt, heldout: 0.1}, eval: {tokens: 1k}}
chain:
  recipe: recipes/distill.yaml
  tokens: 1k
  anchors: [{name: large, params: 350k}]
desnets: [{name: large-phone, params: 350k, exports: [tiny-int8]}]
"""


def plant(folder: Path) -> None:
    names = {*sys.stdlib_module_names, *packages_distributions(), "colbuild", "tests", "sitecustomize", "usercustomize"}
    for name in filter(str.isidentifier, names):
        (folder / f"{name}.py").write_text(TRAP)


@pytest.mark.slow
def test_no_command_runs_a_module_of_the_project_or_of_the_package(tmp_path, tiny_inputs):
    project = copy_project(tmp_path / "project", tiny_inputs)
    (project / "specs/planted.yaml").write_text(FAMILY)
    limits = "limits: {max_memory: 4GB, min_decode_tps: 0.001}\n"
    profile = project / "exports/tiny-int8.yaml"
    text = profile.read_text()
    profile.write_text(text if "limits:" in text else text + limits)
    package = export(make_tiny_model(tmp_path / "model"), tmp_path / "phone", precision="int8")
    hostile = Path(shutil.copytree(package, tmp_path / "hostile"))
    plant(project)
    plant(hostile)
    subprocess.run(["git", "init", "-q", project], check=True)
    spec = "specs/planted.yaml"
    commands = [
        ["plan", spec], ["plan", spec, "--since", "HEAD"], ["lock", spec], ["build", spec], ["status", spec], ["show", spec],
        ["why", "order", "ansnet", spec], ["graph", spec], ["schema"], ["cache", "ls"], ["cache", "gc"], ["cache", "verify"],
        ["verify", str(package)], ["run", str(package), "--prompt", "the", "--raw", "--max-tokens", "2"],
        ["bench", str(package), "--threads", "1", "--prompt-tokens", "4", "--new-tokens", "2"], ["pack", str(package)],
        ["verify", str(hostile)], ["run", str(hostile), "--prompt", "the", "--raw", "--max-tokens", "2"],
        ["bench", str(hostile), "--threads", "1", "--prompt-tokens", "4", "--new-tokens", "2"],
    ]  # fmt: skip
    canary = tmp_path / "canary"
    codes: dict[str, int] = {}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CANARY": str(canary)}
    for folder, chosen in ((project, commands), (hostile, commands[-3:])):
        ran = subprocess.run(
            [sys.executable, "-P", "-c", _EVERY, json.dumps(chosen)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        codes |= json.loads(ran.stderr.splitlines()[-1])
    assert not canary.exists(), canary.read_text()
    # Nothing is committed, so that there is no revision to compare with; and the package holds files that are not its own.
    assert {name for name, code in codes.items() if code} == {f"plan {spec} --since HEAD", f"verify {hostile}"}
