"""quantise: a model rounded to few bits, and trained for a short while to compute with them; see `docs/packages.md`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from colbuild.export.companions import write_companions
from colbuild.export.decoder import EmptyDecoder, decoder_graph, graph_weights, matrix_origins
from colbuild.export.fitting import Fitted, fit, room_for_matrices
from colbuild.export.rounded_file import write_rounded
from colbuild.export.rounding import round_blocks, round_to
from colbuild.export.statistics import gather
from colbuild.export.straight_through import rounded_parameters
from colbuild.ops.models import calibration, model_of
from colbuild.ops.step import StepRun
from colbuild.ops.training import Rounded, Task, steered_recipe, train_checkpoint
from colbuild.spec.device import Device
from colbuild.train.devices import forward_type
from colbuild.weights.checkpoint import Checkpoint, load_checkpoint


def run(step: StepRun) -> None:
    """Rounds a model as its export would, and trains it towards itself unrounded.

    Weights pass their gradients straight through the rounding (arXiv 1308.3432). The steps that were fitted stay, as do the
    embedding and the head; codes and vectors are trained.

    Inputs: `model`, `corpus`. Params: `profile`, as much of it as decides the rounding; `recipe`, `split`. The output holds
    what `colbuild.export.rounded_file` writes, and `training.json`.

    Raises:
        BuildError: As any training; or there is no room for the model even with 4 bits everywhere.
    """
    folder = step.inputs["model"]
    teacher = load_checkpoint(folder)
    profile = Device.model_validate(step.params["profile"], strict=False)
    decoder = decoder_graph(teacher.config, teacher.tensors, profile.context, profile.operators)
    fitted = _fitted(teacher, decoder, profile, folder, step)
    origins = matrix_origins(teacher.config, teacher.tensors)
    trained = fitted.rounded
    parameters = rounded_parameters(trained, origins)
    start = {name: parameters.inside(name, tensor.float()) for name, tensor in teacher.tensors.items()}
    # Of embedding and head no text says what each row is worth: they are rounded, and stay.
    tables = {name: round_blocks(decoder.weights[name].float(), 8, profile.table_block) for name in fitted.fixed}
    kept = rounded_parameters(tables, origins)
    start |= {name: kept.computed(name, start[name]) for name in kept.parts}
    student = replace(teacher, tensors=start)

    def keep(model: Checkpoint) -> None:
        named = graph_weights(model.config, model.tensors)
        matrices = {name: round_to(named[name].float(), steps) for name, steps in trained.items()}
        write_rounded(step.output, matrices, {name: one for name, one in named.items() if one.ndim == 1})

    rounded = Rounded(lambda device: parameters.on(device).computed, frozenset(kept.parts))
    train_checkpoint(Task(student, teacher, steered_recipe(step), step, rounded=rounded), keep)


def _fitted(teacher: Checkpoint, decoder: EmptyDecoder, profile: Device, folder: Path, step: StepRun) -> Fitted:
    """How the model's export would round it."""
    model = model_of(teacher, forward_type())
    windows = calibration(step.inputs["corpus"], step.params["split"], profile.calibration, model)
    statistics = gather(model, teacher.structure, windows, step.report)
    del model
    with tempfile.TemporaryDirectory() as companions:
        write_companions(folder, teacher.config, profile, Path(companions))
        room = room_for_matrices(profile, decoder, Path(companions))
    return fit(decoder, profile, statistics, room, step.report)
