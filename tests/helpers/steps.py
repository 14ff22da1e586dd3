"""Steps without a build: one carried out as the executor does, and steps whose id is a name alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colbuild.ops.step_run import StepRun
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import Operation, Scene, Work
from colbuild.plan.steps.operations import OPERATIONS


def run_step(
    op: str, inputs: Mapping[str, Path], params: Mapping[str, Any], output: Path, *more: Any, **rest: Any
) -> None:
    """Carries a step out; what follows the output are further fields of StepRun."""
    OPERATIONS[op].carry_out(StepRun(inputs, output, *more, **rest), params)


def work_of(op: str, params: Mapping[str, Any], *scene: Any, **rest: Any) -> Work | None:
    """The work of a step; what follows the parameters are fields of Scene."""
    operation = OPERATIONS[op]
    return operation.work_of(operation.params.read(params), Scene(*scene, **rest))


class NamedStep(Step):
    """A step whose id is its name, for tests in which kinds do not matter."""

    @property
    def id(self) -> str:
        return self.name


def named_step(name: str, op: str, params: Mapping[str, Any], *more: Any, **rest: Any) -> Step:
    return NamedStep(op, name, params, *more, **rest)


def carry_out_instead(monkeypatch: pytest.MonkeyPatch, run: Callable[[StepRun, Mapping[str, Any]], None]) -> None:
    """Carries out every kind of step by a test's own function of the run and the parameters."""
    monkeypatch.setattr(Operation, "carry_out", lambda _, step, values: run(step, values))


def set_epoch(monkeypatch: pytest.MonkeyPatch, op: str, epoch: int) -> None:
    monkeypatch.setitem(OPERATIONS, op, replace(OPERATIONS[op], epoch=epoch))
