"""teach: a teacher's distributions on a text, stored once for every training on it (`teacher: cached`)."""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import torch
from transformers import PreTrainedModel

from colbuild.errors import StoppedError
from colbuild.ops.shared.running_models import check_text, running_model
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.teach import TeachParams
from colbuild.plan.workload.at_once import CHUNK_TOKENS
from colbuild.progress import Progress
from colbuild.store.durable_files import read_json, storage_errors, write_json_durably
from colbuild.train.batch import Batch
from colbuild.train.corpus.packing import PackedCorpus, open_corpus
from colbuild.train.corpus.teacher_cache import FORMAT, META, RECORDS, WINDOWS, Teachings, encode, offsets
from colbuild.train.corpus.text_windows import read_windows, training_windows
from colbuild.train.loop.devices import computing_type, open_accelerator
from colbuild.train.losses.forward import final_hidden, head_weight
from colbuild.weights.files.checkpoint import load_checkpoint, write_json

TOKENS_AT_ONCE: Final = 2048
"""Tokens that pass through the teacher at once. Not the recipe's `micro_batch`: it decides how the last bits round."""

_DONE: Final = "done.json"


def run(step: StepRun, params: TeachParams) -> None:
    """Writes a teacher's lessons (`colbuild.train.corpus.teacher_cache`).

    Inputs: `teacher` (a checkpoint), `corpus`. Params: `split`, `seed`, `sequence`, `documents`, `precision` of the recipe,
    `temperature` of its loss, `type` of its teacher_cache, and `windows`: how many sequences its training reads, which is its
    steps times its `batch`. Nothing else of the recipe is in the key, so recipes with other weights in the loss, optimisers or
    schedules, or the same number of sequences in other batches, share the lessons. A sequence that is read in several epochs is
    taught once.

    An interrupted run leaves its records in the step's `partial`, and the next one goes on from them.

    Raises:
        BuildError: The corpus is too small, a sequence is longer than the teacher's positions, or the teacher's logits are
            not numbers.
        StoppedError: The step was asked to stop.
    """
    device = open_accelerator().device
    dtype = computing_type(params.precision, device)
    teacher = running_model(load_checkpoint(step.inputs["teacher"]), dtype, device)
    corpus = open_corpus(step.inputs["corpus"], params.split)
    check_text(corpus.vocabulary, params.sequence, teacher, "teacher")
    windows = _windows(corpus, params)
    about = Teachings(
        params.type,
        params.temperature,
        head_weight(teacher).shape[0],
        params.sequence,
        params.documents,
        len(windows),
    )
    folder = step.partial or step.output
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _teach(teacher, corpus, windows, about, step, params.seed, folder)
        if step.partial is not None:
            shutil.copyfile(step.partial / RECORDS, step.output / RECORDS)
        np.asarray(windows, "<i8").tofile(step.output / WINDOWS)
        write_json(step.output / META, {"format": FORMAT, **asdict(about)})


def _windows(corpus: PackedCorpus, params: TeachParams) -> list[int]:
    """The windows that the training reads, each once, rising."""
    found = training_windows(corpus, seed=params.seed, step=0, batch=params.windows, sequence=params.sequence)
    return sorted(set(found))


def _teach(
    teacher: PreTrainedModel,
    corpus: PackedCorpus,
    windows: list[int],
    about: Teachings,
    step: StepRun,
    seed: int,
    folder: Path,
) -> None:
    """Fills the folder's records, from where an interrupted run left them."""
    rows = max(1, TOKENS_AT_ONCE // about.sequence)
    with _Draft(folder, about, lasting=step.partial is not None) as draft:
        due = time.monotonic() + step.checkpoint_every
        for start in range(draft.done, len(windows), rows):
            if step.stopping():
                draft.keep()
                raise StoppedError(
                    f"stopped after {start} of {len(windows)} sequences",
                    hint="build again: the teacher continues with the next one" if step.partial else None,
                )
            batch = read_windows(
                corpus, windows[start : start + rows], about.sequence, apart=about.documents == "apart"
            )
            draft.append(b"".join(_records(teacher, batch, about, seed)), len(batch.windows))
            if time.monotonic() >= due:
                draft.keep()
                due = time.monotonic() + step.checkpoint_every
            step.report(Progress(draft.done * about.sequence, len(windows) * about.sequence, "tokens", "teaching"))
        draft.keep()


@torch.inference_mode()
def _records(teacher: PreTrainedModel, batch: Batch, about: Teachings, seed: int) -> Iterator[bytes]:
    """A batch's records, a chunk of tokens at a time."""
    starts = torch.cat([offsets(seed, window, about.sequence) for window in batch.windows])
    there = batch.to(teacher.device)
    hidden, head = final_hidden(teacher, there.tokens, there.documents), head_weight(teacher)
    for rows, drawn in zip(*(torch.split(part, CHUNK_TOKENS) for part in (hidden, starts)), strict=True):
        yield encode((rows @ head.T).float(), about, drawn)


class _Draft:
    """Records that are appended to a file, so many windows of which are known to be on the disk.

    `done.json` beside it says how many, and the checksum of their bytes. What was written after them is cut off, and where they
    are not what it says, or were made otherwise, the draft is begun anew.

    Args:
        folder: Where they are.
        about: What they are.
        lasting: Whether anything is kept for another run.

    Attributes:
        done: How many windows are in it.
    """

    def __init__(self, folder: Path, about: Teachings, *, lasting: bool) -> None:
        self._folder = folder
        # Another torch, and other rows beside a row, round differently: the result would be neither's.
        self._made = {**asdict(about), "torch": torch.__version__, "at_once": TOKENS_AT_ONCE}
        self._lasting = lasting
        self.done, self._checksum = self._found(about.window_bytes) if lasting else (0, 0)
        self._file = (folder / RECORDS).open("r+b" if self.done else "wb")
        self._file.truncate(self.done * about.window_bytes)
        self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, records: bytes, windows: int) -> None:
        """Adds the records of some windows."""
        self._file.write(records)
        self._checksum = zlib.crc32(records, self._checksum)
        self.done += windows

    def keep(self) -> None:
        """Makes what is there survive a power loss, and says so."""
        if not self._lasting:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        values = {"made": self._made, "windows": self.done, "checksum": self._checksum}
        write_json_durably(self._folder, self._folder / _DONE, values)

    def _found(self, size: int) -> tuple[int, int]:
        """(windows, checksum) of a draft of these lessons; (0, 0) if there is none, or none that is sound."""
        try:
            values = read_json(self._folder / _DONE) or {}
            done, expected, checksum = int(values["windows"]), values["checksum"], 0
            with (self._folder / RECORDS).open("rb") as file:
                for _ in range(done):
                    checksum = zlib.crc32(file.read(size), checksum)
            sound = values["made"] == self._made and checksum == expected
        except (OSError, ValueError, TypeError, KeyError):
            return 0, 0
        return (done, checksum) if sound else (0, 0)
