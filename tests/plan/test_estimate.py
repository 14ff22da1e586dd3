"""Estimates: what they rest on, and that they never claim more than is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from colbuild.arch import forward_flops, parameters
from colbuild.plan.changes.states import State
from colbuild.plan.cost.estimate import Estimates, estimate
from colbuild.plan.cost.machine import MachineSpeed
from colbuild.plan.drawing.parts import Parts
from colbuild.plan.operation import WEIGHTS
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.plan.shapes.route import distillation_flops
from colbuild.plan.steps.interpolate import SCORINGS
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.plan.workload.training import trained_tokens
from colbuild.spec.model.recipe import Recipe
from tests.conftest import MACHINE
from tests.helpers.steps import work_of
from tests.plan.built import World, nothing_known, world
from tests.plan.families import ANCHORS, ANSNET, load

HOTTER = "sequence: 256\nloss: {temperature: 2.0, kd_weight: 0.9}\noptimizer: {lr: 5e-4}\n"


@pytest.fixture
def fresh(tmp_path):
    return world(tmp_path)


@pytest.fixture
def built(fresh):
    fresh.build()
    return fresh


def never() -> MachineSpeed:
    raise AssertionError("no machine is measured for what recorded runs tell")


def one_after_the_other(seconds, memory):
    """Steps of which no two run at the same time."""
    return sum(seconds.values()), max((memory[step] for step in seconds), default=0)


def estimated(place: World, look=None, records=None, speed=lambda: MACHINE, **parts: str) -> Estimates:
    graph = place.graph(**parts)
    steps = tuple((place.plan(look, **parts) if look else place.plan(**parts)).values())
    chain = resolve_chain(load(place.root / "project", **parts), ANSNET)
    parts = Parts(place.store)
    return estimate(
        graph,
        steps,
        chain,
        records or place.store.records,
        speed,
        one_after_the_other,
        weights_of=lambda result: parts.digest(result, WEIGHTS),
    )


def took(place: World, seconds: float, op: str):
    """The store's records, as if each run of an operation had taken this long."""
    return lambda: (replace(record, seconds=seconds) if record.op == op else record for record in place.store.records())


# -- work -------------------------------------------------------------------------------------------------------------


def test_distillation_is_the_teacher_forward_and_the_student_three_times(fresh):
    found = estimated(fresh).steps["distill a100"]
    chain = resolve_chain(load(fresh.root / "project"), ANSNET)
    above, below = (forward_flops(m.structure, 256) for m in (chain.ansnet, chain.anchors[0]))
    # 80k tokens in whole steps of 8 x 256
    assert found.flops == distillation_flops(39 * 2048, above, below)


def test_a_recipe_trains_whole_steps_and_at_least_one():
    assert trained_tokens(Recipe(tokens=1, sequence=64, batch=8)) == 512
    assert trained_tokens(Recipe(tokens=1100, sequence=64, batch=8)) == 1024


def test_interpolation_scores_every_candidate(fresh):
    chain = resolve_chain(load(fresh.root / "project"), ANSNET)
    phone = chain.desnets[0].member.structure
    found = estimated(fresh).steps["interpolate phone"]
    assert found.flops == SCORINGS["group_alpha"].windows(8) * 512 * forward_flops(phone, 512)


def test_evaluating_the_ansnet_runs_it_once(fresh):
    found = estimated(fresh).steps
    assert found["evaluate ansnet"].flops == 16384 * forward_flops(ANSNET, 512)
    assert found["evaluate a100"].flops > found["evaluate ansnet"].flops


def test_training_needs_more_memory_than_measuring_and_holds_weights_masters_and_moments(fresh):
    found = estimated(fresh).steps
    assert found["distill a100"].memory > found["evaluate a100"].memory
    chain = resolve_chain(load(fresh.root / "project"), ANSNET)
    assert found["distill a100"].memory > 20 * chain.anchors[0].parameters
    assert found["distill a100"].memory > found["distill a76"].memory


def test_a_smaller_package_takes_less_disk(fresh):
    int8 = estimated(fresh).steps["export phone/phone-int8"].disk
    fp32 = estimated(fresh, profile="precision: fp32\n").steps["export phone/phone-int8"].disk
    count = resolve_chain(load(fresh.root / "project"), ANSNET).desnets[0].member.parameters
    assert 4 * count < fp32 < 4.1 * count
    assert count < int8 < 1.3 * count


def test_work_on_an_unknown_model_is_unknown():
    assert work_of("evaluate", {"tokens": 10, "split": "heldout"}, {}) is None
    assert work_of("source", {}, {}) is None
    assert work_of("source", {}, {}, ANSNET).disk == 2 * parameters(ANSNET)


# -- time -------------------------------------------------------------------------------------------------------------


def test_without_runs_time_comes_from_flops_and_says_so(fresh):
    found = estimated(fresh).steps["distill a100"]
    assert found.seconds == pytest.approx(found.flops / (OPERATIONS["distill"].flops_share * MACHINE.matrices))
    assert found.basis == "from FLOPs at 105 GFLOP/s by a micro-benchmark, uncalibrated"
    assert found.runs == 0
    totals = estimated(fresh)
    assert totals.basis == "from a micro-benchmark, uncalibrated"
    assert totals.steps["source ansnet"].basis == "from bytes at 35 MB/s by a micro-benchmark, uncalibrated"


def test_every_operation_has_a_share_of_the_machines_speed(fresh):
    recipe = "recover: {recipe: recipes/distill.yaml, teacher: cached}"
    recovered = f"  - {{name: phone, params: 88M, {recipe}, exports: [phone-int8]}}\n"
    anchors = ANCHORS.replace("params: 76M", "shape: {layers: 19, ffn: 944}, init: {checkpoint: ./start}")
    found = estimated(
        fresh, desnets=recovered, anchors=anchors, data="  train: {source: ./corpus.txt, limit: 3MB}\n"
    ).steps
    bridged = estimated(
        fresh,
        data="  train: {generate: {tokens: 200k}, limit: 800kB}\n",
        bridge="{tokenizer: {train: 16k}, recipe: recipes/distill.yaml}",
        desnets="  - {name: phone, params: 88M}\n",
    ).steps
    limited = "  train: {source: ./corpus.txt, limit: 3MB}\n"
    rounded = estimated(fresh, data=limited, profile="precision: int4\nrecover: quantised\n").steps
    every = [*found.values(), *bridged.values(), *rounded.values()]
    assert {one.step.partition(" ")[0] for one in every} == OPERATIONS.keys()
    assert all(one.seconds for one in every)


def test_a_machine_twice_as_fast_takes_half_the_time(fresh):
    faster = MachineSpeed(2 * MACHINE.matrices, 2 * MACHINE.plain)
    assert estimated(fresh, speed=lambda: faster).most == pytest.approx(estimated(fresh).most / 2)


def test_the_machine_is_asked_once_and_only_for_what_no_run_tells(fresh):
    asked = []

    def speed():
        asked.append(1)
        return MACHINE

    estimated(fresh, speed=speed)
    assert asked == [1]
    fresh.build()
    assert estimated(fresh, speed=never).steps == {}
    order = [step.id for step in fresh.graph().steps]

    def records():
        """One after the other, as steps run; the store's say the same time for all."""
        return (replace(record, built_at=float(order.index(record.step))) for record in fresh.store.records())

    changed = estimated(fresh, speed=never, records=records, distill=HOTTER).steps
    assert changed
    assert all(one.runs for one in changed.values())


def test_a_corpus_of_unknown_size_is_not_guessed(fresh):
    totals = estimated(fresh)
    assert totals.steps["corpus train"].seconds is None
    assert totals.untold == 1
    limited = estimated(fresh, data="  train: {source: ./corpus.txt, limit: 3MB}\n")
    assert limited.steps["corpus train"].seconds == pytest.approx(
        3e6 / (OPERATIONS["corpus"].byte_share * MACHINE.plain)
    )
    assert limited.untold == 0


def test_runs_of_the_same_step_come_first_and_only_a_change_of_work_scales_them(built):
    found = estimated(built, records=took(built, 100.0, "distill"), distill=HOTTER).steps["distill a100"]
    assert (found.seconds, found.basis, found.runs) == (100.0, "median of 1 run", 1)
    anchors = "    - {name: a100, params: 103M, tokens: 160k}\n    - {name: a76, params: 76M}\n"
    longer = estimated(built, records=took(built, 100.0, "distill"), anchors=anchors).steps["distill a100"]
    assert longer.seconds == pytest.approx(200.0, rel=0.02)
    assert longer.basis == "median of 1 run, scaled"


def test_a_new_step_is_scaled_from_the_operations_runs(built):
    anchors = "    - {name: a100, params: 103M}\n    - {name: a76, params: 76M}\n    - {name: a50, params: 50M}\n"
    desnets = "  - {name: phone, params: 88M}\n  - {name: tag, params: 60M}\n"
    found = estimated(built, records=took(built, 100.0, "distill"), anchors=anchors, desnets=desnets).steps
    assert found["distill a50"].basis == "median of 2 distill runs, scaled"
    assert 50 < found["distill a50"].seconds < 100
    assert "uncalibrated" not in found["interpolate tag"].basis


def test_runs_that_did_far_less_work_say_nothing(built):
    tokens = "    - {name: a100, params: 103M, tokens: 8M}\n    - {name: a76, params: 76M}\n"
    found = estimated(built, anchors=tokens).steps["distill a100"]
    assert found.runs == 0
    assert "uncalibrated" in found.basis


def test_another_precision_is_no_comparison(built):
    found = estimated(built, distill="sequence: 256\nprecision: fp32\n").steps["distill a100"]
    assert found.runs == 0


def test_the_median_of_several_runs_counts(built):
    [record] = [one for one in built.store.records() if one.step == "distill a100"]
    several = [replace(record, key=f"{n:064x}", seconds=seconds) for n, seconds in enumerate((10.0, 400.0, 30.0))]
    found = estimated(built, records=lambda: [*built.store.records(), *several], distill=HOTTER).steps["distill a100"]
    assert found.seconds == pytest.approx((12.5 + 30.0) / 2)
    assert found.basis == "median of 4 runs"


def test_records_of_other_parameters_are_skipped_not_fatal(built):
    [record] = [one for one in built.store.records() if one.step == "distill a100"]
    odd = [
        replace(record, params={}),
        replace(record, params={"shape": {"width": 1}}),
        replace(record, params={"shape": 3}),
    ]
    found = estimated(built, records=lambda: odd, distill=HOTTER).steps["distill a100"]
    assert found.runs == 0


def test_total_is_a_range_while_steps_are_conditional(built):
    changed = estimated(built, distill=HOTTER)
    conditional = [one for one in changed.steps.values() if one.conditional]
    assert conditional
    assert changed.most == pytest.approx(changed.least + sum(one.seconds for one in conditional))


def test_nothing_pending_costs_nothing_and_reads_no_records(built):
    def unread():
        raise AssertionError("a finished family needs no record")

    found = estimated(built, records=unread)
    assert found.steps == {}
    assert (found.least, found.most, found.disk, found.memory) == (0, 0, 0, 0)


def test_unknown_sources_are_estimated_all_the_same(fresh):
    steps = estimated(fresh, look=nothing_known).steps
    assert set(steps) == {step.id for step in fresh.graph().steps}
    assert all(plan.state is State.NEW for plan in fresh.plan(nothing_known).values())


# -- the AnsNet's part ------------------------------------------------------------------------------------------------


def test_the_ansnet_teaches_the_first_anchor_only(fresh):
    reads = estimated(fresh).reads
    assert reads.tokens == 39 * 2048
    assert reads.times == 1
    assert reads.direct_tokens == (39 * 2048,) * 3


def test_direct_distillation_costs_more_the_more_desnets_there_are(fresh):
    few = estimated(fresh).reads
    desnets = "".join(f"  - {{name: d{n}, params: {80 + n}M, interpolate: {{method: subset}}}}\n" for n in range(20))
    many = estimated(fresh, desnets=desnets).reads
    assert many.tokens == few.tokens
    assert many.direct_flops / many.flops > 5 > few.direct_flops / few.flops


def test_a_part_of_a_family_is_compared_as_a_whole(built):
    whole = built.graph()
    some = replace(whole, steps=whole.steps[:2])
    chain = resolve_chain(load(built.root / "project"), ANSNET)
    assert estimate(some, (), chain, list, never, one_after_the_other, whole).reads == estimated(built).reads


def test_a_family_that_is_only_the_ansnet_has_nothing_to_compare(fresh):
    layers = ANSNET.shape.layers
    same = f"  - {{name: same, shape: {{layers: {layers}}}}}\n"
    assert estimated(fresh, desnets=same).reads is None
