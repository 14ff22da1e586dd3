"""What runs beside what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from colbuild.plan.cost.machine_resources import Demand, Resources, demand_of, fits, machine
from colbuild.plan.steps.operations import OPERATIONS

resources = st.builds(
    Resources, st.integers(1, 64), st.integers(1, 2**40), st.integers(0, 8).map(lambda count: tuple(range(count)))
)


@given(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 2**45), resources)
def test_every_step_fits_alone_however_large_it_is(op, memory, there):
    assert fits(demand_of(op, memory, there), {}, there)


@given(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 2**45), st.integers(0, 2**45), resources)
def test_threads_do_not_depend_on_memory_or_on_what_else_runs(op, one, other, there):
    assert demand_of(op, one, there).cores == demand_of(op, other, there).cores


def test_training_takes_every_core_and_a_gpu_and_measuring_leaves_room():
    there = Resources(8, 10**10, (0, 1))
    assert demand_of("distill", 10**9, there) == Demand(8, 10**9, 1)
    assert demand_of("evaluate", 10**9, there) == Demand(4, 10**9, 0)


def test_memory_keeps_steps_apart():
    there = Resources(4, 10 * 10**9)
    running = {"evaluate a": Demand(1, 6 * 10**9)}
    assert not fits(Demand(1, 5 * 10**9), running, there)
    assert fits(Demand(1, 4 * 10**9), running, there)


def test_a_gpu_is_given_to_one_step_at_a_time():
    there = Resources(8, 10**10, (0,))
    assert not fits(Demand(1, 0, 1), {"distill a": Demand(1, 0, 1)}, there)
    assert fits(Demand(1, 0, 0), {"distill a": Demand(1, 0, 1)}, there)


def test_the_machine_has_a_core_and_memory(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    there = machine()
    assert there.cores >= 1
    assert there.memory > 2**28


def test_what_the_user_allows_numerical_libraries_holds(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert (machine().cores, machine().gpus) == (1, (2, 3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine().gpus == ()
