"""generate: text that the AnsNet writes, many texts at once, as a corpus (`data.generate`, and `seqkd`)."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import DynamicCache, PreTrainedModel

from colbuild.errors import BuildError, StoppedError
from colbuild.ops.corpus.tokens import load_vocabulary
from colbuild.ops.models import running_model
from colbuild.ops.step import StepRun
from colbuild.plan.work import GENERATED_AT_ONCE
from colbuild.progress import Progress
from colbuild.store.files import read_json, storage_errors, write_json_durably
from colbuild.train.devices import forward_type, open_accelerator
from colbuild.weights.checkpoint import load_checkpoint

TEXTS: Final = "texts.jsonl"


def run(step: StepRun) -> None:
    """Writes texts of at most `length` tokens until they have `tokens` tokens together.

    Inputs: `model` (the AnsNet). Params: `tokens`, `temperature`, `prompts` (taken in turn), `length`, `seed`. A text begins
    after the separator of documents, with its prompt, and ends with it or at its length. The output is `texts.jsonl`, a text
    to a line.

    Each batch is drawn from its own seed, so an interrupted run, which leaves its batches in the step's `partial`, goes on to
    the same texts.

    Raises:
        BuildError: A prompt is as long as a text, or the model computes no numbers.
        StoppedError: The step was asked to stop.
    """
    folder = step.inputs["model"]
    model = running_model(load_checkpoint(folder), forward_type(), open_accelerator().device)
    vocabulary = load_vocabulary(folder)
    length = min(int(step.params["length"]), int(model.config.max_position_embeddings) - 1)
    prompts = [_prompt(text, vocabulary.tokenizer, length) for text in step.params["prompts"]] or [[]]
    ends = {vocabulary.separator, *_ends(model)}
    written, batch = 0, 0
    wanted: int = step.params["tokens"]
    with (step.output / TEXTS).open("w", encoding="utf-8") as file:
        while written < wanted:
            texts = _kept(step.partial, batch)
            if texts is None:
                if step.stopping():
                    raise StoppedError(f"stopped after {written:,} of {wanted:,} tokens")
                first = batch * GENERATED_AT_ONCE
                rows = [prompts[(first + row) % len(prompts)] for row in range(GENERATED_AT_ONCE)]
                drawn = write_texts(
                    model,
                    [[vocabulary.separator, *row] for row in rows],
                    length,
                    ends,
                    temperature=step.params["temperature"],
                    seed=int.from_bytes(hashlib.sha256(f"{step.params['seed']}:{batch}".encode()).digest()[:7], "big"),
                )
                texts = [(vocabulary.tokenizer.decode(ids[1:], skip_special_tokens=True), len(ids)) for ids in drawn]
                _keep(step.partial, batch, texts)
            for text, count in texts:
                if written >= wanted:
                    break
                written += count
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            step.report(Progress(min(written, wanted), wanted, "tokens", "generating"))
            batch += 1


@torch.no_grad()
def write_texts(
    model: PreTrainedModel,
    starts: Sequence[Sequence[int]],
    length: int,
    ends: set[int],
    *,
    temperature: float,
    seed: int,
) -> list[list[int]]:
    """Goes on with some beginnings at once, keys and values kept.

    Beginnings of different lengths run side by side: a row that still has tokens of its own takes those instead of drawing
    any. A row that has ended is taken out of the batch, once a quarter of the rows have.

    Args:
        model: The model.
        starts: Token ids of each beginning, at least one.
        length: Tokens of a text at most, its beginning's first one not counted.
        ends: Ids after which a text is over.
        temperature: Divides the logits.
        seed: Decides what is drawn.

    Returns:
        The ids of each text, its beginning included and without the id that ended it.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    texts = [list(start[:1]) for start in starts]
    rows = list(range(len(starts)))
    cache = DynamicCache(config=model.config)
    # Since transformers 5.24 it has the shorter name.
    kept = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    fed = torch.tensor([[start[0]] for start in starts], device=device)
    over: set[int] = set()
    for place in range(1, length + 1):
        logits = model(input_ids=fed, use_cache=True, **{kept: cache}).logits[:, -1].float().cpu()
        if not torch.isfinite(logits).all():
            raise BuildError(
                "the AnsNet computes NaN or infinity: its weights are damaged", hint="run colbuild cache verify"
            )
        drawn = torch.multinomial((logits / temperature).softmax(dim=-1), 1, generator=generator).squeeze(1).tolist()
        following = []
        for row, index in zip(rows, drawn, strict=True):
            token = starts[row][place] if place < len(starts[row]) else index
            if row not in over:
                if place >= len(starts[row]) and token in ends:
                    over.add(row)
                else:
                    texts[row].append(token)
            following.append(token)
        if len(over) == len(starts):
            break
        left = [at for at, row in enumerate(rows) if row not in over]
        if len(left) <= 0.75 * len(rows):
            cache.batch_select_indices(torch.tensor(left, device=device))
            rows, following = [rows[at] for at in left], [following[at] for at in left]
        fed = torch.tensor([[token] for token in following], device=device)
    return texts


def _prompt(text: str, tokenizer: Any, length: int) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) >= length:
        raise BuildError(
            f"a prompt of {len(ids):,} tokens leaves nothing of a text of {length:,} to write: {text[:60]!r}",
            hint="raise 'length' in 'generate', or shorten the prompt",
        )
    return ids


def _ends(model: PreTrainedModel) -> Iterator[int]:
    eos = model.config.eos_token_id
    yield from eos if isinstance(eos, list) else [] if eos is None else [eos]


def _kept(partial: Path | None, batch: int) -> list[tuple[str, int]] | None:
    """The texts of a batch that an earlier run wrote; None if there are none."""
    found = None if partial is None else read_json(_path(partial, batch))
    return None if found is None else [(text, count) for text, count in found]


def _keep(partial: Path | None, batch: int, texts: Sequence[tuple[str, int]]) -> None:
    if partial is None:
        return
    with storage_errors(partial):
        partial.mkdir(parents=True, exist_ok=True)
        write_json_durably(partial, _path(partial, batch), texts)


def _path(partial: Path, batch: int) -> Path:
    return partial / f"{batch:06}.json"
