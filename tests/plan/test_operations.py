"""A kind of step is one module below and one above: nothing else knows of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from colbuild.fetch.contents import Sources
from colbuild.plan.changes.states import State, result_of
from colbuild.plan.changes.why import explain
from colbuild.plan.drawing.target import find_step, parse_target, select
from colbuild.plan.operation import Operation, Scene
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.run.process.failures import OutOfMemoryError
from colbuild.run.process.job import Job
from colbuild.run.process.perform import perform
from tests.plan import weighing
from tests.plan.built import SOURCES, World, world
from tests.plan.families import ANSNET, load
from tests.plan.test_estimate import estimated
from tests.plan.weighing import WEIGH


@pytest.fixture
def fam(tmp_path, monkeypatch) -> World:
    monkeypatch.setitem(OPERATIONS, "weigh", WEIGH)
    return world(tmp_path)


def test_a_kind_that_is_added_is_drawn_for_every_model_and_selected_with_it(fam):
    graph = fam.graph()
    weighed = {step.name for step in graph.steps if step.op == "weigh"}
    assert weighed == set(graph.models)
    chosen = select(graph, [parse_target("phone")])
    assert {step for step in chosen if step.startswith("weigh")} == {"weigh phone"}
    assert find_step(graph, "weigh watch").name == "watch"


def test_it_is_planned_estimated_and_explained(fam):
    plan = fam.plan()["weigh phone"]
    assert (plan.state, plan.why[:3]) == (State.NEW, "new")
    found = estimated(fam).steps["weigh phone"]
    assert found.memory == 10**6
    assert found.basis == "from bytes at 625 MB/s by a micro-benchmark, uncalibrated"
    fam.build()
    plans = fam.plan(look={**SOURCES, "./ansnet": "b" * 64}.get)
    assert plans["weigh phone"].why == "only if phone changes"
    told = explain(
        "weigh phone",
        fam.graph(),
        tuple(fam.plan().values()),
        family="fam",
        store=fam.store,
        places=load(fam.root / "project").places,
        source_digest=SOURCES.get,
    )
    assert [use.role for use in told.inputs] == ["model.weights"]
    assert result_of(next(step for step in fam.graph().steps if step.id == "weigh phone")) == "the weight of phone"


def test_it_runs_with_its_parameters_and_is_found_again(fam, tmp_path):
    made = fam.build()["distill a76"].output
    step = replace(next(step for step in fam.graph().steps if step.id == "weigh watch"), params={"unit": 2})
    sources = Sources(tmp_path, fam.store.downloads, {})
    job = Job(step, 1, 1, "fam", {"model.weights": made}, fam.store.root, sources, 1, (), tmp_path / "log")
    done = perform(job, lambda event: None, lambda: False)
    assert done.fresh
    weight = json.loads((fam.store.files(done.record.output) / "weight.json").read_text())["weight"]
    assert weight == sum(path.stat().st_size for path in fam.store.files(made).iterdir()) / 2
    assert not perform(job, lambda event: None, lambda: False).fresh


@pytest.mark.parametrize("follows", [True, False])
def test_only_a_step_with_a_recipe_is_told_to_change_it_when_memory_runs_out(fam, tmp_path, monkeypatch, follows):
    def run_out(step, params):
        raise MemoryError

    monkeypatch.setattr(weighing, "run", run_out)
    monkeypatch.setattr(Operation, "follows_recipe", property(lambda _: follows))
    made = fam.build()["distill a76"].output
    step = next(step for step in fam.graph().steps if step.id == "weigh watch")
    sources = Sources(tmp_path, fam.store.downloads, {})
    job = Job(step, 1, 1, "fam", {"model.weights": made}, fam.store.root, sources, 1, (), tmp_path / "log")
    step = replace(step, params={"unit": 3})
    with pytest.raises(OutOfMemoryError) as caught:
        perform(replace(job, step=step), lambda event: None, lambda: False)
    assert ("recipe" in caught.value.hint) == follows


def test_the_price_of_a_family_counts_the_training_of_rounded_models(fam):
    found = estimated(fam, profile="precision: int4\nrecover: quantised\n")
    rounded = sum(one.flops for one in found.steps.values() if one.step.startswith("quantise "))
    assert rounded > 0
    making = [one for one in found.steps.values() if OPERATIONS[one.step.partition(" ")[0]].counts_as_making]
    assert found.reads.flops == sum(one.flops or 0 for one in making)
    assert found.reads.flops > estimated(fam).reads.flops


@pytest.mark.parametrize("op", sorted(OPERATIONS))
def test_every_kind_names_a_module_and_says_what_it_takes(op):
    operation = OPERATIONS[op]
    assert operation.op == op
    assert operation.flops_share or operation.byte_share
    assert operation.title("x")


def test_work_on_a_model_that_is_not_known_is_unknown_and_a_mistake_is_not():
    assert WEIGH.work_of(WEIGH.params.read({"unit": 1}), Scene({})) is None
    assert WEIGH.work_of(WEIGH.params.read({"unit": 1}), Scene({"model": ANSNET})) is not None
    with pytest.raises(TypeError):
        WEIGH.work_of(WEIGH.params.read({"units": 1}), Scene({"model": ANSNET}))


def test_parameters_of_every_step_are_read_as_they_are_written(tmp_path):
    golden = json.loads((Path(__file__).parent / "golden" / "keys.json").read_text())
    for family in golden.values():
        for identity, step in family.items():
            op = identity.partition(" ")[0]
            read = OPERATIONS[op].params.read(step["params"])
            assert set(step["params"]) <= set(vars(read))
