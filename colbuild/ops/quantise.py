"""quantise: a model rounded to few bits and trained for a short time with the rounded weights; see `docs/packages.md`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from colbuild.export.graph.decoder import EmptyDecoder, Origin, decoder_graph, graph_weights, matrix_origins
from colbuild.export.package.companions import write_companions
from colbuild.export.rounding.block_rounding import Blocks, round_blocks
from colbuild.export.rounding.fitting import Fitted, fit, room_for_matrices
from colbuild.export.rounding.matrix_statistics import gather
from colbuild.export.rounding.rounded_file import write_rounded
from colbuild.export.rounding.scaled import scaled_parameters
from colbuild.ops.shared.running_models import calibration, model_of
from colbuild.ops.shared.student_training import train_checkpoint
from colbuild.ops.shared.training_task import Instead, Task
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.quantise import QuantiseParams
from colbuild.plan.workload.training import steered
from colbuild.spec.model.device import Device
from colbuild.train.loop.devices import forward_type
from colbuild.weights.files.checkpoint import Checkpoint, load_checkpoint


def run(step: StepRun, params: QuantiseParams) -> None:
    """Rounds a model as its export would, and trains it towards itself unrounded.

    Codes stay, as do the embedding and the head; each block's scale and the vectors are trained
    (`colbuild.export.rounding.scaled`).

    Inputs: `model`, `corpus`. Params: `profile`, as much of it as decides the rounding; `recipe`, `split`. The output holds
    what `colbuild.export.rounding.rounded_file` writes, and `training.json`.

    Raises:
        BuildError: As any training; or there is no room for the model even with 4 bits in every layer.
    """
    folder = step.inputs["model"]
    teacher = load_checkpoint(folder)
    profile = params.profile
    decoder = decoder_graph(teacher.config, teacher.tensors, profile.context, profile.operators)
    fitted = _fitted(teacher, decoder, profile, folder, step, params.split)
    origins = matrix_origins(teacher.config, teacher.tensors)
    vectors = {name: tensor for name, tensor in teacher.tensors.items() if tensor.ndim == 1}
    small = {name: fitted.rounded[name] for name in fitted.tables}
    scaled = scaled_parameters(
        {name: one for name, one in fitted.rounded.items() if name not in small}, origins, vectors
    )
    large = {name: round_blocks(decoder.weights[name], 8, profile.table_block) for name in fitted.fixed}
    tables = _tables(teacher, large | small, origins)

    def keep(gains: Mapping[str, torch.Tensor]) -> None:
        trained = {name: scaled.computed(name, gains[name]) for name in vectors}
        named = graph_weights(teacher.config, {**teacher.tensors, **trained})
        trained_vectors = {name: one for name, one in named.items() if one.ndim == 1}
        write_rounded(step.output, scaled.matrices(gains) | small, trained_vectors)

    student = replace(teacher, tensors={**teacher.tensors, **tables})
    task = Task(
        student,
        teacher,
        steered(params.recipe, step.settings),
        step,
        params.split,
        instead=Instead(scaled.on, frozenset(tables)),
    )
    train_checkpoint(task, keep)


def _tables(model: Checkpoint, every: Mapping[str, Blocks], origins: Mapping[str, Origin]) -> dict[str, torch.Tensor]:
    """Embedding and head rounded, by the model's names. Of them no text says what each row is worth: they stay."""
    found = {}
    for name, rounded in every.items():
        parameter = origins[name].parameter
        # Positions beyond the package's context are not in its graph.
        tensor = model.tensors[parameter].float().clone()
        upright = tensor.T if origins[name].turned else tensor
        upright[origins[name].rows[: len(rounded.codes)]] = rounded.values()
        found[parameter] = tensor
    return found


def _fitted(
    teacher: Checkpoint, decoder: EmptyDecoder, profile: Device, folder: Path, step: StepRun, split: str
) -> Fitted:
    """How the model's export would round it."""
    model = model_of(teacher, forward_type())
    windows = calibration(step.inputs["corpus"], split, profile.calibration, model)
    statistics = gather(model, teacher.structure, windows, step.reached)
    del model
    with tempfile.TemporaryDirectory() as companions:
        write_companions(folder, teacher.config, profile, Path(companions))
        room = room_for_matrices(profile, decoder, Path(companions))
    return fit(decoder, profile, statistics, room, step.reached)
