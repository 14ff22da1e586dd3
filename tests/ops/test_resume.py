"""distill and recover go on after an interruption: the tree they leave is the same, byte for byte."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType

import pytest

from colbuild.errors import StoppedError
from colbuild.hashing import scan_tree
from colbuild.progress import silent
from colbuild.train.fused.compiler import find_compiler
from tests.helpers.steps import run_step
from tests.ops.family import carry_out, distilled, larger, ordered, packed, recipe_of, room, smaller

STEPS = 5


def steps_to_take(op, precision):
    """(inputs, params) of a short training."""
    recipe = recipe_of(tokens=STEPS * 128, precision=precision)
    if op == "distill":
        return distilled(ordered(), recipe, layers=3, ffn=72)
    inputs = {"start": smaller(), "teacher": larger(), "corpus": packed()}
    return inputs, {"recipe": recipe, "split": "train"}


def attempt(op, step, partial, *, stop_after=None, report=silent, settings=MappingProxyType({}), compiled=None):
    """Runs a step beside what it left before; returns its output's tree. None: it stopped, as it was asked to."""
    output = Path(tempfile.mkdtemp(prefix=f"{op}-", dir=room()))
    asked = iter(range(10**6))
    inputs, params = step
    stopping = lambda: stop_after is not None and next(asked) >= stop_after  # noqa: E731
    try:
        run_step(op, inputs, params, output, report, partial, 1e9, stopping, settings=settings, compiled=compiled)
    except StoppedError:
        assert list(output.iterdir()) == []
        return None
    return scan_tree(output)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("op", ["distill", "recover"])
def test_stopped_after_each_step_equals_uninterrupted(tmp_path, op, precision):
    step = steps_to_take(op, precision)
    whole = scan_tree(carry_out(op, *step))
    assert "training.json" in {entry.path for entry in whole}
    for _ in range(1, STEPS):
        assert attempt(op, step, tmp_path, stop_after=1) is None
        assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert attempt(op, step, tmp_path) == whole


@pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
def test_in_compiled_code_too_and_that_is_where_it_ran(tmp_path):
    step, how = steps_to_take("distill", "bf16"), {"settings": {"compile": "always"}, "compiled": tmp_path / "code"}
    whole = attempt("distill", step, tmp_path / "whole", **how)
    assert list((tmp_path / "code" / "kernels").glob("*.so"))
    assert attempt("distill", step, tmp_path / "parts", stop_after=2, **how) is None
    assert attempt("distill", step, tmp_path / "parts", **how) == whole


def test_checkpoint_of_another_model_starts_the_training_anew(tmp_path):
    other = distilled(ordered(), recipe_of(tokens=STEPS * 128), layers=2, ffn=72)
    assert attempt("distill", other, tmp_path, stop_after=2) is None
    step = steps_to_take("distill", "fp32")
    assert attempt("distill", step, tmp_path) == scan_tree(carry_out("distill", *step))


FORKED = get_context("forkserver")
"""Processes that share one import of torch."""

FORKED.set_forkserver_preload([__name__])


def carry_on(inputs, params, output, partial):
    os.fsync = lambda _: None  # a killed process loses nothing that it has written
    run_step("distill", inputs, params, output, partial=partial, checkpoint_every=0.0)


@pytest.mark.slow
def test_killed_at_random_moments_equals_uninterrupted(tmp_path):
    recipe = recipe_of(tokens=150 * 128, precision="bf16")
    inputs, params = distilled(ordered(), recipe, layers=3, ffn=72)
    whole = scan_tree(carry_out("distill", inputs, params))
    partial, output = tmp_path / "partial", tmp_path / "output"
    kills, reached = 0, []
    while True:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        child = FORKED.Process(target=carry_on, args=(inputs, params, output, partial))
        child.start()
        before = newest(partial)
        # Ever later after it made headway: each time the blow falls elsewhere between or inside steps and writings.
        while kills < 6 and child.is_alive() and newest(partial) <= before + 7 * kills:
            time.sleep(0.001)
        if kills < 6 and child.is_alive():
            time.sleep(0.003 * kills)
            child.kill()
            kills += 1
            child.join()
            reached.append(newest(partial))
            continue
        child.join()
        assert child.exitcode == 0
        break
    assert kills == 6
    assert reached == sorted(set(reached))
    assert scan_tree(output) == whole


def newest(partial):
    """The step of the newest checkpoint; 0 if there is none."""
    return max((int(path.stem.removeprefix("step-")) for path in partial.glob("step-*.json")), default=0)
