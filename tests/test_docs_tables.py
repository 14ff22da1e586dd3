"""The tables of the documentation hold what the code holds: commands, options, exit codes, events, layouts, names, keys."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from colbuild import errors
from colbuild.arch import ARCHITECTURES
from colbuild.cli.app import app
from colbuild.events import Event, event_to_json
from colbuild.export.manifest import Manifest
from colbuild.plan.cost.machine_resources import Resources, demand_of
from colbuild.plan.saved.plan_file import SavedPlan
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.report.screen.states_view import WORDS
from colbuild.spec.model.decides import steering
from colbuild.spec.model.device import Device
from colbuild.spec.model.recipe import Loss, Recipe
from colbuild.spec.model.written import FamilyFile, WrittenBridge, WrittenChain, WrittenDesNet
from colbuild.spec.sources.formats import FORMATS
from colbuild.store import layout
from colbuild.train.losses.divergences import DIVERGENCES
from colbuild.weights.mixing.strategies import CONTROLS, GIVEN, SEARCHES
from tests.helpers.project import ROOT

DOCS = ROOT / "docs"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def column(name: str, head: str, place: int = 0) -> list[str]:
    """The code spans in one column of the first table whose header begins so."""
    lines = text(name).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    found: list[str] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line)
        found += re.findall(r"`([^`]+)`", cells[place + 1])
    assert found, f"{name} has no table {head}"
    return found


def keys(model: type[BaseModel]) -> set[str]:
    """A model's keys as a user writes them."""
    return {field.alias or name for name, field in model.model_fields.items()}


# -- commands ---------------------------------------------------------------------------------------------------------


def commands(group: Any, before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{before}{name} ")
        else:
            found[f"{before}{name}"] = command
    return found


COMMANDS = commands(typer.main.get_command(app))


def options() -> set[str]:
    return {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    } | {"--help", "--version"}


def test_every_command_is_in_the_table_and_only_these():
    assert set(column("docs/commands.md", "| command | does |")) == set(COMMANDS)


def test_every_cache_command_is_in_its_table():
    spans = column("docs/cache.md", "| command | does |")
    named = {f"cache {word}" for span in spans for word in re.findall(r"colbuild cache (\w+)", span)}
    assert named == {name for name in COMMANDS if name.startswith("cache ")}


def test_every_option_is_described_somewhere():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.glob("*.md")])
    assert sorted(option for option in options() if not re.search(rf"{option}(?![\w-])", pages)) == []


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))])
def test_every_option_after_colbuild_exists(page: str):
    """In code: `colbuild plan --exit-code`."""
    asked = re.findall(r"colbuild ((?:cache )?[a-z]+)((?: [^`\n]*)?)", text(page))
    wrong = [
        f"{command} {option}"
        for command, rest in asked
        if command in COMMANDS
        for option in re.findall(
            r"(?<![\w-])--[a-z][a-z-]+", rest.split("#")[0].split("&&")[0].split("|")[0].split(";")[0]
        )
        if option not in {opt for parameter in COMMANDS[command].params for opt in parameter.opts} | {"--help"}
    ]
    assert wrong == []


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_exit_codes_are_those_of_the_errors(page: str):
    told = {int(line.split("|")[1]) for line in text(page).splitlines() if re.match(r"\| \d \|", line)}
    assert told == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def test_states_are_those_of_the_plan():
    for page, head in (("docs/commands.md", "| sign | state |"), ("docs/store.md", "| sign | state |")):
        lines = text(page).splitlines()
        start = lines.index(next(line for line in lines if line.startswith(head))) + 2
        rows = [[cell.strip(" `") for cell in line.split("|")[1:3]] for line in lines[start : start + len(WORDS)]]
        assert dict(rows) == {state.value: word for state, word in WORDS.items()}


# -- builds and the store ---------------------------------------------------------------------------------------------


def test_events_are_those_of_a_build():
    from colbuild.events import _NAMES

    lines = text("docs/builds.md").splitlines()
    start = lines.index(next(line for line in lines if line.startswith("| event | fields |"))) + 2
    told = {}
    for line in lines[start : start + len(_NAMES)]:
        event, fields = line.split("|")[1:3]
        told[event.strip(" `")] = set(re.findall(r"`(\w+)`", fields))
    assert told == {name: {field.name for field in dataclasses.fields(kind)} for kind, name in _NAMES.items()}
    assert set(_NAMES) == set(get_args(Event))
    assert event_to_json is not None


def test_the_layout_is_that_of_the_store():
    block = text("docs/store.md").split("```\n.colbuild/\n")[1].split("```")[0]
    entries = {
        name.split("/")[0]
        for line in block.splitlines()
        if re.match(r"  \S", line)
        for name in re.split(r"[ ,]+", line.strip().split("   ")[0])
        if name
    }
    assert entries == {*layout._FOLDERS, *layout._MARKS, "project.json"}


def test_every_kind_of_step_is_in_the_table():
    assert sorted(column("docs/plan.md", "| step | reads |")) == sorted(OPERATIONS)


def test_threads_and_gpus_of_steps_are_those_that_the_executor_gives():
    given = Resources(cores=4, memory=10**9, gpus=(0,))
    whole = {op for op in OPERATIONS if demand_of(op, 0, given).cores == given.cores}
    assert set(column("docs/builds.md", "| step | threads |")) - {"order"} == whole - {"order"}
    assert {op for op in OPERATIONS if demand_of(op, 0, given).gpus} == whole - {"order"}


def test_libraries_in_an_exports_key_are_named():
    from colbuild.plan.planning import _EXPORT_LIBRARIES

    sentence = " ".join(text("docs/store.md").split())
    told = re.search(r"An export's key also holds the exact versions of (.*?)\.(?: |$)", sentence)
    assert told is not None
    assert set(re.findall(r"[a-z-]{4,}", told[1])) == set(_EXPORT_LIBRARIES)


# -- the method -------------------------------------------------------------------------------------------------------


def test_losses_are_those_of_the_table_of_divergences():
    assert set(column("docs/method.md", "| `loss.type` | D |")) == set(DIVERGENCES)
    assert set(column("docs/method.md", "| `loss.across` | compares |")) == _literals(Loss, "across")


def test_strategies_are_those_of_interpolation():
    assert set(column("docs/method.md", "| `method` | the DesNet is |")) >= {*GIVEN, *SEARCHES, *CONTROLS}


def test_architectures_are_those_of_the_table():
    assert set(column("docs/architectures.md", "| `model_type` |")) == set(ARCHITECTURES)


def test_formats_of_texts_are_those_that_are_read():
    assert set(column("docs/corpus.md", "| format | a document is |")) == set(FORMATS)


# -- keys of files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "head", "model"),
    [
        ("docs/packages.md", "| key | holds |", Manifest),
        ("docs/plan.md", "| field | holds |", SavedPlan),
    ],
    ids=lambda value: str(value),
)
def test_keys_of_a_file_are_in_its_table(page: str, head: str, model: Any):
    fields = set(model.model_fields) if issubclass(model, BaseModel) else {f.name for f in dataclasses.fields(model)}
    assert set(column(page, head)) & fields == fields


def test_the_table_of_what_only_steers_a_run_has_every_field_that_is_marked_so():
    [_, table] = text("docs/spec.md").split("These values steer a run")
    rows = re.findall(r"^\| `(\w+)` \|", table.split("###")[0], re.MULTILINE)
    assert sorted(rows) == list(steering(Recipe))


@pytest.mark.parametrize("model", [FamilyFile, WrittenChain, WrittenBridge, WrittenDesNet, Recipe, Device])
def test_every_key_that_a_user_may_write_is_on_the_page(model: type[BaseModel]):
    page = text("docs/spec.md")
    assert sorted(key for key in keys(model) if not re.search(rf"`{key}(?:`|[.:])", page)) == []


def _literals(model: type[BaseModel], field: str) -> set[str]:
    annotation: Any = model.model_fields[field].annotation
    found: set[str] = set()

    def walk(part: Any) -> None:
        for inner in get_args(part):
            if isinstance(inner, str):
                found.add(inner)
            else:
                walk(inner)

    walk(annotation)
    return found
