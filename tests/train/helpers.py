"""Tiny models and batches for the training loop, with no file in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from colbuild.plan.workload.training import steps_of
from colbuild.progress import Report, silent
from colbuild.spec.model.recipe import Recipe
from colbuild.train.batch import Batch
from colbuild.train.loop.devices import open_accelerator
from colbuild.train.loop.keeper import Keeper, Keeping
from colbuild.train.loop.loop import Running
from colbuild.train.loop.loop import train as run_loop
from colbuild.train.loop.micro_batch import Micro, recompute
from colbuild.train.loop.student import Student, whole
from colbuild.train.loop.teaching import online
from colbuild.train.loop.training_state import Reading

VOCABULARY = 40


def tiny_llama(
    seed: int, *, hidden: int = 32, dtype: torch.dtype = torch.float32, tied: bool = True, **config: Any
) -> LlamaForCausalLM:
    """A random llama of about ten thousand parameters."""
    torch.manual_seed(seed)
    settings = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        **config,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(settings).to(dtype).eval()
    return model


def text(step: int, *, seed: int = 0, batch: int = 4, sequence: int = 16) -> torch.Tensor:
    """Tokens [batch, sequence + 1] that can be learned: each is the last one plus one or two."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    start = torch.randint(0, VOCABULARY, (batch, 1), generator=generator)
    steps = torch.randint(1, 3, (batch, sequence), generator=generator).cumsum(dim=1)
    return torch.cat([start, start + steps], dim=1) % VOCABULARY


def recipe(*, steps: int = 20, **changes: Any) -> Recipe:
    """A recipe for batches of `text`."""
    settings = {
        "tokens": steps * 4 * 16,
        "sequence": 16,
        "batch": 4,
        "precision": "fp32",
        "optimizer": {"lr": 3e-3},
    }
    return Recipe.model_validate(settings | changes, strict=False)


def weights_of(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    """A copy of a model's weights."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def batch_of(tokens: torch.Tensor) -> Batch:
    """A batch of tokens [batch, sequence + 1], each of which is asked for."""
    return Batch(tokens[:, :-1].clone(), tokens[:, 1:].clone(), tuple(range(len(tokens))))


_NOTHING_KEPT = Keeping()


def running(
    how: Recipe, *, report: Report = silent, keeping: Keeping = _NOTHING_KEPT, rows: int = 4, **micro: bool
) -> Running:
    """Where a test's training runs: here, with so many rows at once."""
    flags = {"recompute": False, "fixed": False, "may_recompute": True} | micro
    return Running(open_accelerator(), Micro(rows, **flags), Keeper(keeping, steps_of(how)), lambda *_: None, report)


def student_of(model: LlamaForCausalLM) -> Student:
    """A model as a student that begins as it is now."""
    blocks = list(model.model.layers)
    return Student(model, weights_of(model), whole(model, 0), lambda: recompute(blocks), blocks)


def train(
    student: LlamaForCausalLM,
    teacher: LlamaForCausalLM,
    batches: Callable[[int], torch.Tensor],
    how: Recipe,
    report: Report = silent,
    keeping: Keeping = _NOTHING_KEPT,
) -> list[Reading]:
    """Trains a student on batches of tokens, with nothing but logits compared; returns the readings."""
    where = running(how, report=report, keeping=keeping)
    state = run_loop(
        student_of(student),
        online(teacher),
        lambda step: batch_of(batches(step)),
        how,
        hidden_weight=0.0,
        running=where,
    )
    return state.readings
