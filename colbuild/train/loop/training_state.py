"""The checkpoint of a training: written at intervals, and read back exactly.

::

    partial/
      step-00000040.safetensors   fp32 weights, the optimiser's averages and counts, torch's random state, the student's texts
      step-00000040.json          readings so far, digest of the tensors, digest of all the rest; written last
      step-00000080.safetensors
      step-00000080.json

A checkpoint counts once its JSON is there: tensors first, then JSON, each written under another name, synced, renamed.
Where in the text and on the schedule a run is follows from its step alone. A checkpoint that is torn, changed, of another
torch or of another training is removed; the one before it takes its place, or the training starts again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from colbuild.documents import read_json_file, shallow
from colbuild.hashing import hash_bytes, hash_file, spaced_json
from colbuild.store.durable_files import storage_errors, sync_folder
from colbuild.train.loop.own_text import Texts
from colbuild.train.loop.state_tensors import fill, fits, tensors_of, write_tensors

FORMAT: Final = "colbuild.training.v1"
KEPT: Final = 2
"""Checkpoints that stay: if the newest one turns out to be damaged, little is lost."""

_NAME: Final = re.compile(r"step-(\d{8,})\.(?:json|safetensors)")
_DRAFT: Final = "draft"


@dataclass(frozen=True)
class Reading:
    """One step's losses in nats per token, and the learning rate it took.

    Attributes:
        step: From 0.
        loss: What was trained on.
        kl: The divergence of the recipe's `loss.type`, times the temperature squared; a KL in most of them, hence its name.
        ce: Cross-entropy with the text.
        lr: The learning rate.
        norm: The gradient's norm before it was clipped.
        hidden: hidden_cosine, where it is part of the loss; else 0.
        written: The share of the targets that the student wrote; cross-entropy is not asked of them, nor in `ce`.
        written_kl: `kl` of these alone.
        written_length: The mean number of tokens of its texts.
    """

    step: int
    loss: float
    kl: float
    ce: float
    lr: float
    norm: float
    hidden: float = 0.0
    written: float = 0.0
    written_kl: float = 0.0
    written_length: float = 0.0


@dataclass(frozen=True)
class Setback:
    """A divergence that a training has recovered from.

    Attributes:
        step: From 0: the step that was not taken.
        reason: What was wrong with it.
        resumed: How many steps were done where it went on from.
    """

    step: int
    reason: str
    resumed: int


@dataclass
class State:
    """All that the steps still to come depend on, as the loop itself holds it.

    torch's random state belongs to it too: the CPU's, as nothing in a training draws from a GPU's.

    Attributes:
        weights: Name -> fp32 master, the very tensors that the optimiser changes.
        optimizer: AdamW.
        readings: One for each step that is done.
        setback: Set once the training has diverged and was taken back; it goes on with half the learning rate.
        texts: What the student wrote last, where it learns from its own text too.
    """

    weights: Mapping[str, torch.Tensor]
    optimizer: torch.optim.Optimizer
    readings: list[Reading]
    setback: Setback | None = None
    texts: Texts | None = None

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return len(self.readings)


def save(state: State, folder: Path, also: Collection[int] = ()) -> None:
    """Writes a checkpoint that survives a power loss, and removes all but the newest ones and those of the steps in `also`.

    Raises:
        OSError: The disk refuses. No part of this checkpoint is left; those before it are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / _DRAFT
    tensors, facts = _paths(folder, state.step)
    try:
        digest = write_tensors(draft, tensors_of(state.weights, state.optimizer, _written(state.texts)))
        draft.replace(tensors)
        values = {
            "format": FORMAT,
            "torch": torch.__version__,
            "step": state.step,
            "tensors": digest,
            "readings": [asdict(reading) for reading in state.readings],
            "setback": None if state.setback is None else asdict(state.setback),
        }
        _write(draft, _sealed(values))
        # The tensors' name first: no JSON may outlive a power loss that they do not.
        sync_folder(folder)
        draft.replace(facts)
        sync_folder(folder)
    except BaseException:
        for path in (draft, facts, tensors):
            path.unlink(missing_ok=True)
        raise
    found = sorted(_steps_in(folder))
    _remove_but(folder, [step for step in found if step in also or step in found[-KEPT:]])


def restore(state: State, folder: Path, steps: int, only: Collection[int] | None = None) -> None:
    """Fills a state of which no step is done from the newest checkpoint that fits; leaves it as it is if there is none.

    Newer ones are removed, and so is whatever else lies in the folder under a name of ours and is of no use.

    Args:
        state: Its tensors are filled in place, one after the other.
        folder: Where checkpoints lie; it may be missing.
        steps: How many steps the whole training has.
        only: The steps whose checkpoints are looked at; None for all of them.

    Raises:
        BuildError: The disk fails while a sound checkpoint is read.
    """
    with storage_errors(folder):
        if not folder.is_dir():
            return
        for step in sorted(_steps_in(folder), reverse=True):
            if only is not None and step not in only:
                continue
            progress = _sound(folder, step)
            if progress is not None and 0 < step < steps and fits(_paths(folder, step)[0], state.weights, step):
                _remove_but(folder, [found for found in _steps_in(folder) if found <= step])
                state.texts = _read(fill(_paths(folder, step)[0], state.weights, state.optimizer))
                readings, state.setback = progress
                state.readings.extend(readings)
                return
        _remove_but(folder, [])


def _written(texts: Texts | None) -> dict[str, torch.Tensor]:
    if texts is None:
        return {}
    return {"period": torch.tensor([texts.period]), "tokens": texts.tokens, "drawn": texts.drawn.to(torch.uint8)}


def _read(tensors: Mapping[str, torch.Tensor]) -> Texts | None:
    return Texts(int(tensors["period"]), tensors["tokens"], tensors["drawn"].bool()) if tensors else None


# -- the folder -------------------------------------------------------------------------------------------------------


def _paths(folder: Path, step: int) -> tuple[Path, Path]:
    """A checkpoint's tensors and its JSON."""
    return folder / f"step-{step:08d}.safetensors", folder / f"step-{step:08d}.json"


def _steps_in(folder: Path) -> set[int]:
    """The steps of which there is a JSON, sound or not."""
    return {int(found[1]) for path in folder.glob("step-*.json") if (found := _NAME.fullmatch(path.name))}


def _remove_but(folder: Path, steps: list[int]) -> None:
    """Removes all checkpoints but those of some steps, and what an interrupted writing left."""
    stays = {path.name for step in steps for path in _paths(folder, step)}
    for path in folder.iterdir():
        if path.name not in stays and (path.name == _DRAFT or _NAME.fullmatch(path.name)):
            path.unlink(missing_ok=True)


# -- the JSON ---------------------------------------------------------------------------------------------------------


def _sealed(values: Mapping[str, Any]) -> bytes:
    """Values with the digest of all of them, as a file. Floats are read back to the last bit."""
    return json.dumps({**values, "digest": _digest(values)}, sort_keys=True, allow_nan=False).encode()


def _digest(values: Mapping[str, Any]) -> str:
    return hash_bytes(spaced_json(values))


def _sound(folder: Path, step: int) -> tuple[list[Reading], Setback | None] | None:
    """The readings and the setback of a checkpoint that is as this version of torch wrote it, to the last bit; else None."""
    tensors, facts = _paths(folder, step)
    try:
        values = shallow(read_json_file(facts))
        sound = values.pop("digest") == _digest(values) and values["format"] == FORMAT
        # Another torch rounds differently: the result would be neither's.
        if not sound or values["torch"] != torch.__version__ or values["step"] != step:
            return None
        readings = [Reading(**reading) for reading in values["readings"]]
        setback = None if values["setback"] is None else Setback(**values["setback"])
        return (readings, setback) if len(readings) == step and hash_file(tensors) == values["tensors"] else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
