"""A dependency points down only, and planning needs nothing heavy."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from importlinter.api import read_configuration
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

import colbuild
from tests.helpers.project import ROOT

HEAVY = {
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "datasets",
    "gguf",
    "huggingface_hub",
    "mwparserfromhell",
    "pypi_simple",
    "pandas",
    "pyarrow",
}
"""What a plan must not pay for."""

SEEN = "\nimport json, sys; print('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def imported(script, *arguments, cwd=ROOT, cache=None):
    """What a fresh process prints, and the top-level modules it has imported when the script is done."""
    run = subprocess.run(
        [sys.executable, "-c", script + SEEN, *map(str, arguments)],
        cwd=cwd,
        env={
            "PATH": "",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "120",
            "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"],
            "COLBUILD_CACHE": str(cache or os.environ["COLBUILD_CACHE"]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    *printed, modules = run.stdout.splitlines()
    return "\n".join(printed), set(json.loads(modules))


def heavy(modules):
    return sorted(modules & HEAVY)


# -- contracts --------------------------------------------------------------------------------------------------------


def test_contracts_hold(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    status = lint_imports(no_cache=True, no_logo=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_every_part_of_the_package_has_its_layer():
    """A new part that no layer names would be free to import anything."""
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    [layers] = [
        contract["layers"] for contract in contracts if contract["type"] == "layers" and "containers" not in contract
    ]
    named = {name.strip() for layer in layers for name in layer.split(":")}
    parts = {
        f"colbuild.{path.stem}" for path in (ROOT / "colbuild").iterdir() if not path.name.startswith(("__", "py."))
    }
    assert parts == named


def test_every_part_of_the_planner_has_its_layer():
    """Steps lie between the modules of the room that draws them, so that these are layers of their own."""
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    [layers] = [contract["layers"] for contract in contracts if contract.get("containers") == ["colbuild.plan"]]
    named = {name.strip() for layer in layers for name in re.split(r"[:|]", layer)}
    room = ROOT / "colbuild" / "plan"
    parts = {path.stem for path in room.iterdir() if not path.name.startswith("__")} - {"drawing"}
    assert named == parts | {f"drawing.{path.stem}" for path in (room / "drawing").glob("[a-z]*.py")}


FOR_COMMANDS = {"colbuild", "colbuild.errors", "colbuild.events", "colbuild.progress", "colbuild.units"}
"""What modules of the command line import, beside each other and `colbuild.report`."""


def test_the_command_line_imports_the_interface_and_the_reports_alone():
    for path in sorted((ROOT / "colbuild/cli").glob("*.py")):
        tree = ast.parse(path.read_text())
        named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        named |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        ours = {name for name in named if name.partition(".")[0] == "colbuild"}
        odd = {name for name in ours - FOR_COMMANDS if not name.startswith(("colbuild.cli", "colbuild.report"))}
        assert not odd, path


# -- rooms ------------------------------------------------------------------------------------------------------------

MOST_FILES = 15

FOLDERS = sorted(path.parent for path in (ROOT / "colbuild").rglob("__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_is_small_and_says_what_it_is_for(folder):
    files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= MOST_FILES
    told = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert len(re.findall(r"\.(?=\s|$)", told)) >= 3, told


def test_no_name_of_a_file_occurs_twice_or_is_the_standard_library_s():
    kinds = {ROOT / "colbuild/plan/steps", ROOT / "colbuild/ops"}
    files = [path for path in (ROOT / "colbuild").rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    counts = Counter(path.stem for path in files if path.parent not in kinds)
    assert [name for name, count in counts.items() if count > 1] == []
    assert not {path.stem for path in files} & sys.stdlib_module_names


# -- the table of names -----------------------------------------------------------------------------------------------


def test_the_names_that_type_checkers_see_are_those_of_the_table():
    block = next(node for node in ast.parse(Path(colbuild.__file__).read_text()).body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: module for module, names in colbuild._NAMES.items() for name in names}
    assert set(colbuild.__all__) < set(seen)
    assert set(dir(colbuild)) == {*colbuild.__all__, "__version__"}


def test_every_name_of_the_table_is_there_and_no_other():
    for module, names in colbuild._NAMES.items():
        for name in names:
            assert getattr(colbuild, name) is getattr(import_module(module), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = colbuild.nothing


def test_importing_colbuild_imports_nothing():
    _, seen = imported("import colbuild")
    assert not seen & {"numpy", "networkx", "pydantic", "rich", "typer", "yaml", "typing", "importlib.util"}
    assert heavy(seen) == []


@pytest.mark.parametrize("part", ["cli", "interface", "plan", "store", "arch", "spec"])
def test_nothing_heavy_is_imported_below_the_line_or_by_the_command_line(part):
    """Indirectly neither, which the contract cannot see."""
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "colbuild" / part).rglob("*.py")
    )
    _, seen = imported("import " + ", ".join(modules))
    assert "colbuild" in seen
    assert heavy(seen) == []


# -- commands ---------------------------------------------------------------------------------------------------------

COMMAND = (
    "import sys; from colbuild.cli.app import run_command; code = run_command(sys.argv[1:]); assert code == 0, code"
)


def test_starting_imports_hardly_anything():
    _, seen = imported("import colbuild.cli")
    assert heavy(seen) == []
    assert not seen & {"numpy", "networkx", "pydantic"}


def test_planning_a_fresh_family_imports_nothing_heavy(project):
    script = (
        "import sys; from pathlib import Path; import colbuild as api; import colbuild.cli\n"
        "loaded = api.load_family(Path(sys.argv[1]))\n"
        "plan = api.make_plan(loaded, api.open_workspace(loaded))\n"
        "print(len(plan.steps), len(plan.pending), plan.chain.ansnet.parameters)"
    )
    printed, seen = imported(script, project / "specs/tiny.yaml")
    steps, pending, size = map(int, printed.split())
    assert steps == pending > 10
    assert size > 100_000
    assert heavy(seen) == []
    # Every anchor of it is needed: there is no route to choose.
    assert not seen & {"networkx", "numpy"}


@pytest.mark.parametrize(("required", "chosen"), [({1, 2}, False), ({2}, True)])
def test_networkx_is_imported_only_where_there_is_a_route_to_choose(required, chosen):
    script = (
        "from colbuild.plan.shapes.route import cheapest_route\n"
        f"print(cheapest_route([40, 30, 20], lambda teacher, student: 1, {required}, 2.5))"
    )
    _, seen = imported(script)
    assert ("networkx" in seen) == chosen
    assert not seen & {"numpy", "scipy", "pandas", "matplotlib"}


LOOKS = [
    ("plan",),
    ("plan", "--json"),
    ("plan", "--target", "least"),
    ("status",),
    ("status", "--json"),
    ("lock",),
    ("show",),
    ("show", "--resolved"),
    ("graph",),
    ("graph", "--format", "svg"),
]


@pytest.mark.parametrize("arguments", LOOKS, ids=" ".join)
def test_looking_at_a_fresh_family_imports_nothing_heavy(project, arguments):
    command, *options = arguments
    printed, seen = imported(COMMAND, command, "specs/tiny.yaml", *options, cwd=project)
    assert "tiny" in printed
    assert heavy(seen) == []


def test_only_measuring_the_machine_imports_numpy_and_that_is_done_once(project, tmp_path):
    cache = tmp_path / "cache"
    printed, seen = imported(COMMAND, "plan", "specs/tiny.yaml", cwd=project, cache=cache)
    assert "uncalibrated" in printed
    assert "numpy" in seen
    assert heavy(seen) == []
    again, seen = imported(COMMAND, "plan", "specs/tiny.yaml", cwd=project, cache=cache)
    assert again == printed
    assert "numpy" not in seen


def test_explaining_a_step_imports_nothing_heavy(project):
    printed, seen = imported(COMMAND, "why", "distill", "large", "specs/tiny.yaml", cwd=project)
    assert "distill large" in printed
    assert heavy(seen) == []


@pytest.mark.parametrize("kind", ["family", "recipe", "profile"])
def test_schemas_import_nothing_heavy(kind):
    printed, seen = imported(COMMAND, "schema", kind)
    assert json.loads(printed)["type"] == "object"
    assert heavy(seen) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "status", "build"])
def test_finished_family_needs_nothing_heavy(finished_project, command):
    folder, _ = finished_project
    cache = folder.parent / "no-cache"
    _, seen = imported(COMMAND, command, "specs/tiny.yaml", cwd=folder, cache=cache)
    assert heavy(seen) == []
    # There is nothing to estimate, and so no machine to measure.
    assert not cache.exists()
