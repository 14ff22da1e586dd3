"""The training loop: a student learns from a teacher on packed text.

::

    batch ──> teacher ──> lesson ─┐                              some of a batch may be the student's own text (own_text.py)
      └──> student's passes ──────┴─> loss ──> gradients, summed in fp32 ──> AdamW ──> weights that compute

A batch passes through in parts as small as memory asks for, on as many processes as there are; neither changes the sum.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from accelerate import Accelerator

from colbuild.errors import BuildError, ran_out_of_memory
from colbuild.plan.workload.training import steps_of
from colbuild.progress import Progress, Report
from colbuild.spec.model.precision import EXACT
from colbuild.spec.model.recipe import Loss, Recipe
from colbuild.train.batch import IGNORED, Batch
from colbuild.train.loop.keeper import Keeper
from colbuild.train.loop.micro_batch import Micro, smaller
from colbuild.train.loop.own_text import OnPolicy, written_length
from colbuild.train.loop.schedule import learning_rate
from colbuild.train.loop.steady import WATCHED, trouble
from colbuild.train.loop.student import Pass, Student
from colbuild.train.loop.teaching import Teacher
from colbuild.train.loop.training_state import Reading, State
from colbuild.train.losses.hidden_cosine import hidden_cosine, watching
from colbuild.train.losses.logits_buffer import Room
from colbuild.train.losses.losses import LossWeights

Batches = Callable[[int], Batch]
"""Step -> its whole batch."""

Listen = Callable[[State, float], None]
"""(state after a step, seconds that the step took) -> nothing."""


@dataclass
class Running:
    """The device and the observers of a training; they change only the rounding of its result.

    Attributes:
        accelerator: The device and the processes.
        micro: How a batch passes through; grows smaller where memory runs out.
        keeper: What an interrupted run leaves for the next one.
        listen: Hears of every step.
        report: Shows how far it is.
        room: Memory for logits.
    """

    accelerator: Accelerator
    micro: Micro
    keeper: Keeper
    listen: Listen
    report: Report
    room: Room = field(default_factory=Room)


@dataclass(frozen=True)
class Sums:
    """The sums of one batch, in nats per target token: `ce` per token of the corpus, `written_kl` per token of the student."""

    loss: float
    kl: float
    ce: float
    hidden: float
    written_kl: float = 0.0


def train(
    student: Student,
    teacher: Teacher,
    batches: Batches,
    recipe: Recipe,
    hidden_weight: float,
    running: Running,
    on_policy: OnPolicy | None = None,
) -> State:
    """Distils a teacher into a student, in place.

    Args:
        student: Its models in the recipe's precision, where `running` says.
        teacher: What it learns from.
        batches: Where a step's tokens come from.
        recipe: How to train.
        hidden_weight: Weight of `hidden_cosine` over the student's blocks; 0 where the teacher tells no hidden states.
        running: Where, and who hears of it.
        on_policy: The part of the text that the student writes; None: all of it is the corpus's.

    Raises:
        StoppedError: It was asked to stop between two steps.
        BuildError: It diverged twice, or memory ran out with nothing left to give way.
    """
    steps = steps_of(recipe)
    masters = list(student.masters.values())
    optimizer = _optimizer(masters, recipe)
    state = State(student.masters, optimizer, [])
    keeper, weights = running.keeper, _weights(recipe.loss)
    keeper.resume(state)
    student.renew()
    if state.readings:
        running.report(_progress(state, steps, recipe, ", resumed"))
    while state.step < steps:
        keeper.between(state)
        step, started = state.step, time.perf_counter()
        batch = batches(step)
        if on_policy is not None:
            batch = _with_own_text(on_policy, student, batch, state, recipe, running)
        accumulate = partial(_accumulate, student, teacher, batch, step, weights, hidden_weight, running)
        sums = _as_memory_allows(accumulate, student, running)
        norm = torch.nn.utils.clip_grad_norm_(masters, recipe.optimizer.clip).item()
        reason = trouble([reading.loss for reading in state.readings[-WATCHED:]], sums.loss, norm)
        if reason is not None:
            student.forget_gradients()
            _only_once(state, steps, reason)
            keeper.take_back(state, reason, student.begin)
            student.renew()
            continue
        lr = _rate(step, steps, recipe) * (1.0 if state.setback is None else 0.5)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        student.renew()
        own = (_own_share(batch), sums.written_kl, written_length(batch))
        state.readings.append(Reading(step, sums.loss, sums.kl, sums.ce, lr, norm, sums.hidden, *own))
        running.listen(state, time.perf_counter() - started)
        running.report(_progress(state, steps, recipe, f", no checkpoint: {keeper.trouble}" if keeper.trouble else ""))
    return state


# -- one batch --------------------------------------------------------------------------------------------------------


def _as_memory_allows(accumulate: Callable[[], Sums], student: Student, running: Running) -> Sums:
    """What `accumulate` comes to, with less passing through the models at once where memory runs out."""
    while True:
        try:
            return accumulate()
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            if running.accelerator.num_processes > 1:
                # The other processes wait for this one's sum: none of them can try again alone.
                raise BuildError(
                    f"memory ran out with a micro-batch of {running.micro.rows} sequences",
                    hint="set micro_batch to fewer, or gradient_checkpointing: always, in the recipe",
                ) from error
            less = smaller(running.micro)
        # Not inside the handler: the error's traceback holds on to the tensors that filled the memory.
        student.forget_gradients()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if less.recompute and not running.micro.recompute:
            student.recompute()
        running.micro = less


def _accumulate(
    student: Student,
    teacher: Teacher,
    batch: Batch,
    step: int,
    weights: LossWeights,
    hidden_weight: float,
    running: Running,
) -> Sums:
    """Sums one batch's gradients in the masters."""
    accelerator = running.accelerator
    asked = max(1, _asked(batch))
    own = _own_share(batch)
    totals = torch.zeros(5, dtype=torch.float64)
    parts = _parts(student.passes(step, len(batch.windows)), running.micro.rows, batch.written)
    for way, start, stop in parts[accelerator.process_index :: accelerator.num_processes]:
        part = batch.part(start, stop).to(accelerator.device)
        lesson = teacher(part)
        with watching(student.blocks if hidden_weight else ()) as states:
            hidden, head = way.forward(part)
        # What the student would say is no text to learn from, what its teacher says of it is.
        mix = replace(weights, ce=0.0) if any(part.written) else weights
        loss, kl, ce = lesson.loss(hidden, head, part.targets.flatten(), mix, running.room)
        apart = torch.zeros((), device=loss.device)
        # A pass through a part of the student has not run its blocks: nothing is compared there.
        if states:
            apart = hidden_cosine(states, lesson.states)
        share, rows = _asked(part) / asked, len(part.windows) / len(batch.windows)
        whole = loss * share + hidden_weight * apart * rows
        accelerator.backward(whole)
        of_corpus, of_own = (0.0, share / own) if any(part.written) else (share / (1.0 - own or 1.0), 0.0)
        values = (whole, kl * share, ce * of_corpus, apart * rows, kl * of_own)
        totals += torch.stack([value.detach().double().cpu() for value in values])
    if accelerator.num_processes > 1:
        totals = accelerator.reduce(totals.float().to(accelerator.device), "sum").double().cpu()
        for master in student.masters.values():
            gradient = torch.zeros_like(master) if master.grad is None else master.grad
            master.grad = accelerator.reduce(gradient, "sum")
    return Sums(*totals.tolist())


def _parts(passes: tuple[Pass, ...], rows: int, written: tuple[bool, ...]) -> list[tuple[Pass, int, int]]:
    """(pass, first row, row after the last) of what goes through the models at once: all written by the student, or none."""
    found = []
    for way in passes:
        turns = [row for row in range(way.start + 1, way.stop) if written and written[row] != written[row - 1]]
        for begin, end in pairwise((way.start, *turns, way.stop)):
            found += [(way, start, min(start + rows, end)) for start in range(begin, end, rows)]
    return found


def _asked(batch: Batch) -> int:
    """How many tokens of a batch something is asked of."""
    return int((batch.targets != IGNORED).sum())


def _own_share(batch: Batch) -> float:
    """The share of the targets that the student wrote."""
    if not batch.written:
        return 0.0
    asked = [int(count) for count in (batch.targets != IGNORED).sum(dim=1)]
    return sum(count for count, own in zip(asked, batch.written, strict=True) if own) / max(1, sum(asked))


def _with_own_text(
    on_policy: OnPolicy, student: Student, corpus: Batch, state: State, recipe: Recipe, running: Running
) -> Batch:
    """A step's batch with text of the student's own, which it writes now if its last texts are used up."""
    steps, alone = steps_of(recipe), running.accelerator.num_processes == 1

    def beat(texts: int, tokens: int) -> None:
        # Processes that write texts of different lengths do not meet here.
        if alone:
            running.keeper.between(state)
        running.report(_progress(state, steps, recipe, f", the student writes {texts} texts: token {tokens}"))

    state.texts = on_policy.texts(state.step, state.texts, running.accelerator, beat)
    return on_policy.batch(state.step, corpus, state.texts, student.passes(state.step, len(corpus.windows)))


# -- between batches --------------------------------------------------------------------------------------------------


def _weights(loss: Loss) -> LossWeights:
    return LossWeights(loss.kd_weight, loss.ce_weight, loss.temperature, loss.type, loss.skew or 0.0)


def _rate(step: int, steps: int, recipe: Recipe) -> float:
    schedule = recipe.schedule
    return learning_rate(
        step,
        steps,
        peak=recipe.optimizer.lr,
        kind=schedule.type,
        warmup=schedule.warmup,
        final=schedule.final,
        decay=schedule.decay or 0.0,
    )


def _optimizer(masters: list[torch.Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; weight decay pulls on matrices only, as is usual."""
    settings = recipe.optimizer
    groups: list[dict[str, Any]] = [
        {"params": [tensor for tensor in masters if tensor.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [tensor for tensor in masters if tensor.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def _only_once(state: State, steps: int, reason: str) -> None:
    """Raises BuildError if a training that was taken back diverges again."""
    if state.setback is not None:
        before = state.setback
        raise BuildError(
            f"{reason} at step {state.step + 1} of {steps}, with half the learning rate; "
            f"before, {before.reason} at step {before.step + 1}",
            hint=f"lower optimizer.lr, raise schedule.warmup or set precision: {EXACT} in the recipe",
        )


def _progress(state: State, steps: int, recipe: Recipe, remark: str) -> Progress:
    size = recipe.batch * recipe.sequence
    setback = state.setback
    if setback is not None:
        remark = f", half the learning rate since {setback.reason} at step {setback.step + 1}{remark}"
    phase = f"step {state.step}/{steps}{remark}"
    readings = {"loss": state.readings[-1].loss} if state.readings else {}
    return Progress(state.step * size, steps * size, "tokens", phase, readings)
