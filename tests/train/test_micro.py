"""What passes through the models at once gives way when memory runs out, and changes no result."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from colbuild.arch import read_structure
from colbuild.errors import BuildError, ran_out_of_memory
from colbuild.train.loop.loop import train
from colbuild.train.loop.micro_batch import Micro, first_micro, recompute, smaller
from colbuild.train.loop.teaching import online
from tests.helpers.configs import SMOLLM2
from tests.train.helpers import batch_of, recipe, running, same, student_of, text, tiny_llama, weights_of

CPU = torch.device("cpu")


def fills_memory(model, rows_that_fit, error):
    """Makes a model's forward pass raise when more rows than fit come at once; returns how many came each time."""
    came = []

    def hook(_, __, given):
        came.append(given["input_ids"].shape[0])
        if came[-1] > rows_that_fit:
            raise error

    model.base_model.register_forward_pre_hook(hook, with_kwargs=True)
    return came


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_half_as_many_sequences_are_tried_when_memory_runs_out(error):
    how, student = recipe(steps=3), tiny_llama(1)
    came = fills_memory(student, 1, error)
    where = running(how)
    state = train(student_of(student), online(tiny_llama(2)), lambda step: batch_of(text(step)), how, 0.0, where)
    assert came == [4, 2] + 12 * [1]
    assert (where.micro.rows, where.micro.recompute) == (1, False)
    plain = tiny_llama(1)
    calm = train(
        student_of(plain), online(tiny_llama(2)), lambda step: batch_of(text(step)), how, 0.0, running(how, rows=1)
    )
    assert calm.readings == state.readings
    assert same(weights_of(plain), weights_of(student))


def test_activations_are_computed_again_when_one_sequence_is_too_many_and_then_the_settings_are_named():
    how, student = recipe(steps=3), tiny_llama(1)
    fills_memory(student, 0, MemoryError())
    where = running(how)
    with pytest.raises(
        BuildError, match="memory ran out with a micro-batch of 1 sequence and gradient checkpointing"
    ) as caught:
        train(student_of(student), online(tiny_llama(2)), lambda step: batch_of(text(step)), how, 0.0, where)
    assert where.micro.recompute
    assert "sequence" in caught.value.hint


def test_another_error_of_torch_is_not_taken_for_memory():
    assert not ran_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    how, student = recipe(steps=1), tiny_llama(1)
    fills_memory(student, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        train(student_of(student), online(tiny_llama(2)), lambda step: batch_of(text(step)), how, 0.0, running(how))


def test_what_the_user_fixed_does_not_give_way():
    with pytest.raises(BuildError, match="with a micro-batch of 4 sequences") as caught:
        smaller(Micro(4, recompute=False, fixed=True, may_recompute=False))
    assert "micro_batch: auto" in caught.value.hint
    assert smaller(Micro(4, recompute=False, fixed=True, may_recompute=True)).recompute
    with pytest.raises(BuildError) as caught:
        smaller(Micro(1, recompute=False, fixed=False, may_recompute=False))
    assert "gradient_checkpointing: auto" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sequence": 512, "batch": 8}, Micro(4, False, False, True)),
        ({"sequence": 512, "batch": 2}, Micro(2, False, False, True)),
        ({"sequence": 4096, "batch": 8}, Micro(1, False, False, True)),
        ({"sequence": 512, "batch": 8, "micro_batch": 6}, Micro(6, False, True, True)),
        ({"batch": 8, "gradient_checkpointing": "always", "sequence": 512}, Micro(4, True, False, False)),
        ({"batch": 8, "gradient_checkpointing": "never", "sequence": 512}, Micro(4, False, False, False)),
    ],
)
def test_a_cpu_begins_with_2048_tokens(changes, expected):
    structure = read_structure(SMOLLM2)
    assert first_micro(recipe(**changes), structure, structure, CPU) == expected


def test_text_of_the_students_own_leaves_the_micro_batch_of_a_gpu_as_it_is(monkeypatch):
    # With short sequences and little to learn from at once, writing takes more memory than learning.
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=8 << 30))
    structure, gpu = read_structure(SMOLLM2), torch.device("cuda")
    plain, own = (
        first_micro(recipe(batch=64, on_policy=asked), structure, structure, gpu)
        for asked in (None, {"share": 1.0, "prompt": 4})
    )
    assert own == plain


def test_recomputed_activations_give_the_same_gradients():
    def gradients(again):
        student = tiny_llama(1, attention_dropout=0.5).eval()
        if again:
            recompute(student.model.layers)
        student(input_ids=text(0)[:, :-1]).logits.square().mean().backward()
        return {name: parameter.grad for name, parameter in student.named_parameters()}

    assert same(gradients(False), gradients(True))
