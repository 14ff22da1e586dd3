"""Trains a student checkpoint towards a teacher checkpoint, for distill, recover and bridge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from colbuild.arch import forward_flops
from colbuild.errors import BuildError
from colbuild.ops.shared.compiled_training import compiles, fuses
from colbuild.ops.shared.running_models import running_model
from colbuild.ops.shared.student_writing import own_text
from colbuild.ops.shared.training_task import Task, check_models, check_tokens
from colbuild.plan.workload.kept_embeddings import keeps_embeddings
from colbuild.plan.workload.training import steps_of, trained_tokens, written_flops
from colbuild.spec.model.decides import deciding
from colbuild.spec.model.recipe import Recipe
from colbuild.train.batch import Batch
from colbuild.train.compiling import compile_blocks, compiling, eagerly
from colbuild.train.corpus.packing import PackedCorpus, open_corpus
from colbuild.train.corpus.teacher_cache import open_lessons
from colbuild.train.corpus.text_beginning import asked
from colbuild.train.corpus.text_windows import calibration_windows, read_windows, training_windows, window_count
from colbuild.train.fused.kernels import fused
from colbuild.train.fused.modules import fuse
from colbuild.train.loop.devices import computing_type, open_accelerator, processes, side_by_side
from colbuild.train.loop.elastic import Nested
from colbuild.train.loop.keeper import Keeper, Keeping
from colbuild.train.loop.loop import Batches, Running, train
from colbuild.train.loop.micro_batch import first_micro, recompute
from colbuild.train.loop.student import WEIGHTS, Pass, Student, whole
from colbuild.train.loop.teaching import Teacher, cached, online, online_across, text_alone
from colbuild.train.loop.training_state import State
from colbuild.train.losses.hidden_cosine import DEFAULT_WEIGHT, blocks_of, counterparts
from colbuild.train.losses.logits_buffer import Room
from colbuild.train.watching.ledger import ledger_to_json, worsened_remark
from colbuild.train.watching.measure import HeldOut, held_out
from colbuild.train.watching.observer import Measure, Observer
from colbuild.train.watching.outcome import LEAST, ON_POLICY
from colbuild.train.watching.tracking import tracking
from colbuild.weights.files.checkpoint import write_json

CURVE: Final = 64
"""Readings of a training that its record keeps at most."""

KERNELS: Final = "kernels"
"""Where the store keeps the code of fused passes, beside what torch.compile keeps there."""

Finish = Callable[[Mapping[str, torch.Tensor]], None]
"""Writes what a training has made into its step's output: weight by name, in the type that it was stored in."""


def train_checkpoint(task: Task, finish: Finish) -> None:
    """Trains a student, has its result written, and `training.json` beside it.

    An interrupted training leaves checkpoints in the step's `partial`, and the next run goes on from them.

    Raises:
        BuildError: The corpus is too small, a sequence is longer than the model's positions, student and teacher have
            other vocabularies, the teacher computes no numbers, or training diverges.
        StoppedError: The step was asked to stop.
    """
    corpus = open_corpus(task.step.inputs["corpus"], task.split)
    check_tokens(task.recipe, corpus)
    side_by_side(lambda: _train(task, corpus, finish), processes())


def _train(task: Task, corpus: PackedCorpus, finish: Finish) -> None:
    """What each process of a training does, with passes over memory fused where they can be."""
    accelerator = open_accelerator()
    with fused(
        None if task.step.compiled is None else task.step.compiled / KERNELS, wanted=fuses(task, accelerator.device)
    ):
        _train_on(accelerator, task, corpus, finish)


def _train_on(accelerator: Accelerator, task: Task, corpus: PackedCorpus, finish: Finish) -> None:
    recipe, step = task.recipe, task.step
    dtype = computing_type(recipe.precision, accelerator.device)
    model = running_model(task.start, dtype, accelerator.device)
    check_models(task, model, corpus)
    taught = _teacher(task, dtype, accelerator)
    parts = fuse(model)
    if taught.model is not None:
        fuse(taught.model)
    student, wanted = _student(task, model)
    own = own_text(recipe, corpus, model, step.inputs)
    room = Room()
    micro = first_micro(recipe, task.start.structure, task.teacher.structure, accelerator.device)
    if micro.recompute:
        student.recompute()
    with tracking(step.metrics if accelerator.is_main_process else None, recipe.track, deciding(recipe)) as tracker:
        observer = Observer(
            tracker,
            batch_tokens=recipe.batch * recipe.sequence,
            steps=steps_of(recipe),
            every=recipe.evaluate_every,
            measure=_measure(task, wanted, taught, dtype, accelerator, room),
            student_forward=lambda index: _mean_flops(student.passes(index, recipe.batch)),
            least=LEAST if own is None else ON_POLICY,
        )
        # What is trained in the place of weights is computed first.
        student.renew()
        observer.begin()
        running = Running(accelerator, micro, _keeper(task, accelerator), observer, step.report, room)
        # The fused passes are faster than what torch.compile makes of them, and need no time for it.
        compiled = parts == 0 and compiles(task, accelerator.device)
        with _compiled(task, student, taught, compiled):
            state = train(student, taught.teach, _batches(recipe, corpus), recipe, taught.hidden_weight, running, own)
        if not accelerator.is_main_process:
            return
        forward = 0 if taught.model is None else forward_flops(task.teacher.structure, recipe.sequence)
        ledger = observer.finish(
            state,
            go_back=student.go_back,
            teacher_forward=forward,
            writing=written_flops(recipe, task.start.structure),
            device=accelerator.device,
            devices=accelerator.num_processes,
        )
    if task.instead is not None:
        finish({name: tensor.detach().cpu() for name, tensor in student.masters.items()})
    elif observer.worsened is not None:
        # To the last bit: what computes may be rounded to the recipe's precision.
        finish(task.start.tensors)
    else:
        stored = {name: tensor.dtype for name, tensor in task.start.tensors.items()}
        finish(
            {
                name: weight.detach().cpu().to(stored[name]) if weight.requires_grad else task.start.tensors[name]
                for name, weight in model.named_parameters()
            }
        )
    write_json(step.output / "training.json", _summary(recipe, corpus.tokens, state, observer))
    rounding = {"micro_batch": running.micro.rows, "compiled": compiled or parts > 0}
    step.note({**ledger_to_json(ledger), **rounding, "training": _measured(state, observer)})
    if observer.worsened is not None:
        step.remark(worsened_remark(observer.worsened.start, observer.worsened.end))


def _summary(recipe: Recipe, available: int, state: State, observer: Observer) -> dict[str, object]:
    """What lies beside the weights: nothing that another number of threads measures as another number."""
    trained = trained_tokens(recipe)
    return {
        "steps": state.step,
        "tokens": trained,
        "epochs": round(trained / available, 4),
        **({} if observer.worsened is None else {"kept": "start"}),
    }


def _measured(state: State, observer: Observer) -> dict[str, object]:
    """What goes to the record of the run. Every reading is in its file of metrics; of many, some are kept here."""
    heldout, worse = observer.latest, observer.worsened
    apart = max(1, -(-len(state.readings) // CURVE))
    return {
        "heldout": None if heldout is None else {"loss": heldout.loss, "kl": heldout.kl},
        "worsened": None if worse is None else asdict(worse),
        "setback": None if state.setback is None else asdict(state.setback),
        "curve": [asdict(reading) for reading in state.readings[::apart]],
    }


# -- the parts --------------------------------------------------------------------------------------------------------


def _student(task: Task, model: PreTrainedModel) -> tuple[Student, Callable[[], PreTrainedModel]]:
    """The student, and what gives the model that the training is for: of a segment its lower end."""
    start, recipe = task.start, task.recipe
    blocks = blocks_of(model, start.structure)
    smallest = start.structure if task.smallest is None else start.structure.at(task.smallest)
    if keeps_embeddings(recipe, start.structure, smallest, task.teacher.structure):
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.requires_grad_(False)
    if task.smallest is None or recipe.elastic is None:
        passes = whole(model, forward_flops(start.structure, recipe.sequence))
        trained = WEIGHTS
        if task.instead is not None:
            trained = task.instead.on(model.device)
            for name in task.instead.frozen:
                model.get_parameter(name).requires_grad_(False)
        return Student(model, start.tensors, passes, lambda: recompute(blocks), blocks, trained), lambda: model
    nested = Nested(
        model,
        start.structure,
        start.ordered,
        task.smallest,
        share=recipe.elastic.share,
        largest=recipe.elastic.larger_end,
        seed=recipe.seed,
        context=recipe.sequence,
    )

    def compute_again() -> None:
        recompute(blocks)
        nested.recompute()

    lower, segment = task.smallest, recipe.elastic.form == "segment"
    student = Student(model, start.tensors, nested.passes, compute_again, blocks)
    return student, lambda: nested.installed(lower) if segment else model


@dataclass(frozen=True)
class _Taught:
    """The teacher of a training.

    Attributes:
        teach: What it says of a batch.
        model: The model that computes it; None where it was written down before.
        hidden_weight: The weight of hidden_cosine with it.
    """

    teach: Teacher
    model: PreTrainedModel | None
    hidden_weight: float


def _teacher(task: Task, dtype: torch.dtype, accelerator: Accelerator) -> _Taught:
    if task.recipe.teacher == "cached":
        return _Taught(cached(open_lessons(task.step.inputs["lessons"]).samples), None, 0.0)
    if task.by_text:
        return _Taught(text_alone, None, 0.0)
    model = running_model(task.teacher, dtype, accelerator.device)
    if task.across is not None:
        return _Taught(online_across(model, task.across), model, 0.0)
    weight, places = _compared(task)
    blocks = blocks_of(model, task.teacher.structure)
    return _Taught(online(model, tuple(blocks[place] for place in places)), model, weight)


def _measure(
    task: Task,
    wanted: Callable[[], PreTrainedModel],
    taught: _Taught,
    dtype: torch.dtype,
    accelerator: Accelerator,
    room: Room,
) -> Measure | None:
    """Measures the anchor that a training makes, against its teacher; None where the corpus keeps no text from training."""
    try:
        heldout = open_corpus(task.step.inputs["corpus"], "heldout")
        window_count(heldout, task.recipe.sequence)
    except BuildError:
        return None
    if not accelerator.is_main_process:
        return None

    def measure(tokens: int, beside: bool) -> HeldOut:
        windows = calibration_windows(heldout, tokens, task.recipe.sequence)
        targets = asked(windows, heldout.begin, heldout.separator)
        beside = beside and not task.two_vocabularies
        teacher = taught.model if beside else None
        if teacher is None and beside:
            # Whose lessons are read from a cache is in memory only as long as it is needed.
            teacher = running_model(task.teacher, dtype, accelerator.device)
        with eagerly():
            return held_out(wanted(), teacher, windows, targets=targets, room=room)

    return measure


def _compared(task: Task) -> tuple[float, tuple[int, ...]]:
    """The weight of hidden_cosine, and the teacher's blocks that the student's are compared with."""
    wanted = task.recipe.loss.hidden_weight
    shallower = task.start.structure.shape.layers < task.teacher.structure.shape.layers
    weight = (DEFAULT_WEIGHT if shallower else 0.0) if wanted is None else wanted
    lineages = (task.start.lineage, task.teacher.lineage)
    places = None
    if all(lineages):
        places = counterparts(task.start.ordered.layers, task.teacher.ordered.layers)
    if weight == 0.0 or (places is None and wanted is None):
        return 0.0, ()
    if places is None:
        raise BuildError(
            "hidden states cannot be compared: the student has layers that its teacher lacks",
            hint="set loss.hidden_weight: 0 in the recipe",
        )
    return weight, places


@contextmanager
def _compiled(task: Task, student: Student, taught: _Taught, compiled: bool) -> Iterator[None]:
    """Compiles student and teacher for the block, if they are to be."""
    if not compiled:
        yield
        return
    with compiling(task.step.compiled):
        compile_blocks(student.blocks)
        if taught.model is not None:
            compile_blocks(blocks_of(taught.model, task.teacher.structure))
        yield


def _batches(recipe: Recipe, corpus: PackedCorpus) -> Batches:
    def batches(step: int) -> Batch:
        windows = training_windows(corpus, seed=recipe.seed, step=step, batch=recipe.batch, sequence=recipe.sequence)
        return read_windows(corpus, windows, recipe.sequence, apart=recipe.documents == "apart")

    return batches


def _mean_flops(passes: tuple[Pass, ...]) -> float:
    """FLOPs of a step's forward passes for a token, the mean over its rows."""
    rows = sum(way.stop - way.start for way in passes)
    return sum(way.flops * (way.stop - way.start) for way in passes) / rows


def _keeper(task: Task, accelerator: Accelerator) -> Keeper:
    step, main = task.step, accelerator.is_main_process

    def stopping() -> bool:
        """Shares the main process's stop request with all processes, so that they stop after the same step."""
        asked = torch.tensor(float(main and step.stopping()), device=accelerator.device)
        return bool(accelerator.reduce(asked, "sum") > 0)

    asks = step.stopping if accelerator.num_processes == 1 else stopping
    return Keeper(Keeping(step.partial, step.checkpoint_every, asks, writes=main), steps_of(task.recipe))
