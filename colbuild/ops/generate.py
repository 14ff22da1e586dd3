"""generate: a corpus that the AnsNet writes in batches (`data.generate`, and `seqkd`)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedModel

from colbuild.errors import BuildError, StoppedError
from colbuild.ops.corpus.tokens import load_vocabulary
from colbuild.ops.shared.authorship import check_author, check_begun
from colbuild.ops.shared.running_models import running_model
from colbuild.ops.shared.text_writing import Text, draw_texts
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.generate import GenerateParams, generated_at_once
from colbuild.progress import Progress
from colbuild.store.durable_files import checked, read_json, storage_errors, unchecked, write_json_durably
from colbuild.train.loop.devices import forward_type, open_accelerator
from colbuild.weights.files.checkpoint import load_checkpoint

TEXTS: Final = "texts.jsonl"

FEWEST: Final = 16
"""Texts at once at least; fewer are hardly faster."""


@dataclass(frozen=True)
class Batch:
    """Texts that were written at once.

    Attributes:
        begun: How many were begun.
        texts: Those that are not empty, and the tokens of each.
    """

    begun: int
    texts: list[tuple[str, int]]


def run(step: StepRun, params: GenerateParams) -> None:
    """Writes texts of at most `length` tokens until they have `tokens` tokens together.

    Inputs: `model` (the AnsNet). Params: `tokens`, `temperature`, `prompts` (taken in turn), `length`, `seed`. A text begins
    with what the tokenizer puts in front of texts, or else after the separator of documents, goes on with its prompt, and ends
    with the separator, before the next beginning, or at its length. Texts of nothing but a prompt are left out. The output is
    `texts.jsonl`, a text to a line.

    Each batch is drawn from its own seed, so an interrupted run, which leaves its batches in the step's `partial`, goes on to
    the same texts. Some texts of the first batch are read again, to see that the AnsNet takes them for its own.

    Raises:
        BuildError: A prompt is as long as a text, the model computes no numbers, most texts are empty, or the AnsNet finds them
            unlikely.
        StoppedError: The step was asked to stop.
    """
    folder = step.inputs["model"]
    checkpoint = load_checkpoint(folder)
    model = running_model(checkpoint, forward_type(), open_accelerator().device)
    vocabulary = load_vocabulary(folder)
    begin = vocabulary.opening
    length = min(params.length, int(model.config.max_position_embeddings) - 1)
    room = length + 1 - len(begin)
    prompts = [_prompt(text, vocabulary.tokenizer, room) for text in params.prompts] or [[]]
    # A text is over as well where the model begins the next one: some are trained without a token that ends texts.
    ends = {vocabulary.separator, *vocabulary.begin[:1], *_ends(model)}
    at_once = generated_at_once(checkpoint.structure, length)
    written, begun, empty, batch = 0, 0, 0, 0
    wanted = params.tokens
    with (step.output / TEXTS).open("w", encoding="utf-8") as file:
        while written < wanted:
            kept = _kept(step.partial, batch)
            if kept is None:
                rows = _rows(at_once, wanted - written, written / begun if written else length)
                starts = [[*begin, *prompts[(begun + row) % len(prompts)]] for row in range(rows)]
                drawn = draw_texts(
                    model,
                    starts,
                    length,
                    ends,
                    temperature=params.temperature,
                    seed=int.from_bytes(hashlib.sha256(f"{params.seed}:{batch}".encode()).digest()[:7], "big"),
                    check=partial(_check, step, written, wanted),
                )
                if batch == 0:
                    check_author(model, drawn)
                kept = Batch(rows, _texts(vocabulary.tokenizer, drawn, len(begin)))
                _keep(step.partial, batch, kept)
            begun, empty = begun + kept.begun, empty + kept.begun - len(kept.texts)
            check_begun(empty, begun, vocabulary.tokenizer.decode(begin, skip_special_tokens=False))
            for text, count in kept.texts:
                if written >= wanted:
                    break
                written += count
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            step.report(Progress(min(written, wanted), wanted, "tokens", "generating"))
            batch += 1


def _check(step: StepRun, written: int, wanted: int) -> None:
    """Ends the step if it shall stop; a batch that is being written is begun again next time. Raises StoppedError."""
    if step.stopping():
        raise StoppedError(f"stopped after {written:,} of {wanted:,} tokens")


def _rows(most: int, missing: int, mean: float) -> int:
    """How many texts to write at once: as many as are still missing, if they are as long as those before."""
    return max(FEWEST, min(most, math.ceil(missing / mean)))


def _texts(tokenizer: Any, drawn: Sequence[Text], begin: int) -> list[tuple[str, int]]:
    """Each text and its tokens, but for those that have nothing beyond their beginning, the first ids of which are no text."""
    found = []
    for text in drawn:
        whole, prompt = (
            tokenizer.decode(ids[begin:], skip_special_tokens=True) for ids in (text.ids, text.ids[: -text.drawn])
        )
        if text.drawn and whole.strip() != prompt.strip():
            found.append((whole, len(text.ids)))
    return found


def _prompt(text: str, tokenizer: Any, length: int) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) >= length:
        raise BuildError(
            f"a prompt of {len(ids):,} tokens leaves no room in a text of {length:,} tokens: {text[:60]!r}",
            hint="raise 'length' in 'generate', or shorten the prompt",
        )
    return ids


def _ends(model: PreTrainedModel) -> Iterator[int]:
    eos = model.config.eos_token_id
    yield from eos if isinstance(eos, list) else [] if eos is None else [eos]


def _kept(partial: Path | None, batch: int) -> Batch | None:
    """A batch that an earlier run wrote; None if there is none, or it is not what was written."""
    found = None if partial is None else unchecked(read_json(_path(partial, batch)))
    return None if found is None else Batch(found["begun"], [(text, count) for text, count in found["texts"]])


def _keep(partial: Path | None, batch: int, kept: Batch) -> None:
    if partial is None:
        return
    with storage_errors(partial):
        partial.mkdir(parents=True, exist_ok=True)
        write_json_durably(partial, _path(partial, batch), checked(asdict(kept)))


def _path(partial: Path, batch: int) -> Path:
    return partial / f"{batch:06}.json"
