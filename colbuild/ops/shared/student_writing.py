"""Writes the student's own part of a training's text (`colbuild.train.loop.own_text`).

A row alternates between text that is given and text that the student writes::

    prose   [64 tokens of the corpus] written ............. end [64 more tokens of the corpus] written ......
    chat    [conversation up to an answer] written ... end [up to the next answer] written ... end [up to ...

So rows are full however short texts are, and every prompt begins as texts of the corpus do. All rows of a writing go through
the student side by side, with a cache of keys and values, as in `colbuild.ops.shared.text_writing`.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import PreTrainedModel

from colbuild.errors import BuildError, ran_out_of_memory
from colbuild.ops.shared.answer_marks import Marks, answer_marks
from colbuild.ops.shared.text_writing import cache_argument, drawn_tokens, roomy_cache
from colbuild.plan.workload.at_once import WRITTEN_AT_ONCE
from colbuild.plan.workload.training import steps_of
from colbuild.process_memory import give_back_pages
from colbuild.spec.model.on_policy import CHAT
from colbuild.spec.model.recipe import Recipe
from colbuild.train.batch import Batch
from colbuild.train.compiling import eagerly
from colbuild.train.corpus.packing import PackedCorpus
from colbuild.train.corpus.text_beginning import openings, stored, window
from colbuild.train.corpus.text_windows import as_batch, training_windows
from colbuild.train.loop.own_text import Beat, OnPolicy
from colbuild.train.losses.attention import apart

_TIDY: Final = 16
"""Tokens between two beats, which also give back holes in the heap."""

Script = Iterator[list[int]]
"""What is given: before the student begins to write, and after each end of what it writes. No more of it: the row is over."""


def own_text(
    recipe: Recipe, corpus: PackedCorpus, model: PreTrainedModel, inputs: Mapping[str, Path]
) -> OnPolicy | None:
    """Returns the student's part of a training's text; None where the recipe asks for none.

    Args:
        recipe: How it trains.
        corpus: Where prompts come from.
        model: The student, as it is from step to step.
        inputs: Of its step; `chat` has the chat template where `prompt: chat` needs it.

    Raises:
        BuildError: `prompt: chat` is asked of a corpus or a model that has no answers.
    """
    asked = recipe.on_policy
    if asked is None:
        return None
    marks = answer_marks(inputs["chat"]) if asked.prompt == CHAT else None
    if marks is not None:
        _check_answers(corpus, recipe, marks)
    return OnPolicy(recipe, steps_of(recipe), StudentWriter(recipe, corpus, model, marks))


@dataclass(frozen=True)
class StudentWriter:
    """Writes rows with a student.

    Attributes:
        recipe: How it trains.
        corpus: Where what is given comes from.
        model: The student.
        marks: How answers begin and end in a corpus of conversations; None for prose.
    """

    recipe: Recipe
    corpus: PackedCorpus
    model: PreTrainedModel
    marks: Marks | None = None

    def write(self, places: Sequence[int], beat: Beat) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Writer`. With too little memory fewer rows are written at once, which changes rounding only."""
        found, done, at_once = [], 0, WRITTEN_AT_ONCE
        empty = torch.empty(0, self.recipe.sequence + 1, dtype=torch.int64)
        while done < len(places):
            try:
                with eagerly():
                    found.append(self._rows(places[done : done + at_once], beat))
                done += at_once
                continue
            except (RuntimeError, MemoryError) as error:
                if at_once == 1 or not ran_out_of_memory(error):
                    raise
            at_once = -(-at_once // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        tokens, drawn = ([empty, *(rows[part] for rows in found)] for part in (0, 1))
        return torch.cat(tokens), torch.cat([part.bool() for part in drawn])

    def batch(self, rows: torch.Tensor, windows: tuple[int, ...]) -> Batch:
        """See `Writer`."""
        return as_batch(self.corpus, rows, windows, apart=self.recipe.documents == "apart")

    def _rows(self, places: Sequence[int], beat: Beat) -> tuple[torch.Tensor, torch.Tensor]:
        length = self.recipe.sequence + 1
        ends = {self.corpus.separator} | (set() if self.marks is None else {self.marks.end})
        scripts = [self._script(place) for place in places]
        chances = torch.stack([_chances(self.recipe.seed, place, length) for place in places])
        documents = self._documents if self.recipe.documents == "apart" else None
        return write_rows(self.model, scripts, chances, ends, self.corpus.separator, documents, beat)

    def _script(self, place: int) -> Script:
        """What is given to the row of a sequence, which is numbered over the whole training."""
        sequence, asked = self.recipe.sequence, self.recipe.on_policy
        assert asked is not None
        (which,) = training_windows(self.corpus, seed=self.recipe.seed, step=place, batch=1, sequence=sequence)
        if self.marks is not None:
            # Answers may be shorter than those of the corpus: there is more of it then.
            return conversation(window(self.corpus, which, sequence, sequence).tolist(), self.marks)
        assert isinstance(asked.prompt, int)
        return prose(window(self.corpus, which, sequence).tolist(), asked.prompt, self.corpus)

    def _documents(self, rows: torch.Tensor) -> torch.Tensor:
        return openings(rows, self.corpus.begin, self.corpus.separator).cumsum(dim=1)


def prose(ids: list[int], prompt: int, corpus: PackedCorpus) -> Script:
    """A window in pieces of so many tokens: the first as it is, the others with what texts begin with in front."""
    own = list(stored(corpus.begin, corpus.separator))
    yield ids[:prompt]
    for start in range(prompt, len(ids), prompt):
        piece = ids[start : start + prompt]
        while piece[:1] == [corpus.separator]:
            del piece[0]
        if piece:
            yield piece if own and piece[: len(own)] == own else own + piece


def conversation(ids: list[int], marks: Marks) -> Script:
    """A text without its answers: each piece ends where one begins, and the next begins behind its end."""
    size, done = len(marks.opening), 0
    for at in range(size, len(ids) + 1):
        if at - size >= done and tuple(ids[at - size : at]) == marks.opening:
            yield ids[done:at]
            done = ids.index(marks.end, at) + 1 if marks.end in ids[at:] else len(ids)


Documents = Callable[[torch.Tensor], torch.Tensor]
"""Token ids [rows, tokens] -> the number of each one's document."""


@torch.no_grad()
def write_rows(
    model: PreTrainedModel,
    scripts: Sequence[Script],
    chances: torch.Tensor,
    ends: set[int],
    filler: int,
    documents: Documents | None,
    beat: Beat,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes rows side by side.

    Args:
        model: Who writes.
        scripts: What is given to each row.
        chances: Numbers in [0, 1) that decide what is drawn [rows, length].
        ends: Tokens that end what is written.
        filler: The token of places behind the end of a row's script.
        documents: Tells documents that must not see each other apart; None: all of a row is seen.
        beat: Called now and then.

    Returns:
        (token ids [rows, length], true where the model chose them [rows, length]).

    Raises:
        BuildError: The model computes NaN or infinity.
    """
    rows, length = chances.shape
    device = next(model.parameters()).device
    tokens = torch.full((rows, length), filler)
    drawn = torch.zeros(rows, length, dtype=torch.bool)
    given = [deque(next(script, ())) for script in scripts]
    live = [row for row in range(rows) if given[row]]
    if not live:
        return tokens, drawn
    read = min(length - 1, *(len(given[row]) for row in live))
    for row in live:
        tokens[row, :read] = torch.tensor([given[row].popleft() for _ in range(read)])
    cache = roomy_cache(model, length, whole=documents is not None)
    kept = cache_argument(model)
    fed = slice(0, read)
    for place in range(read, length):
        if (place - read) % _TIDY == 0:
            beat(place)
            give_back_pages()
        seen = {} if documents is None else _seen(documents(tokens[live, :place]), fed.start)
        inputs = {name: value.to(device) for name, value in {"input_ids": tokens[live, fed], **seen}.items()}
        logits = model(**inputs, use_cache=True, logits_to_keep=1, **{kept: cache}).logits[:, -1].cpu()
        chosen = drawn_tokens(logits, 1.0, chances[live, place], "the student computes NaN or infinity")
        over = set()
        for row, (token, _) in zip(live, chosen, strict=True):
            if given[row]:
                tokens[row, place] = given[row].popleft()
                continue
            tokens[row, place], drawn[row, place] = token, True
            if token in ends:
                given[row].extend(next(scripts[row], ()))
                if not given[row]:
                    over.add(row)
        left = [at for at, row in enumerate(live) if row not in over]
        if not left:
            break
        if over:
            cache.batch_select_indices(torch.tensor(left, device=device))
            live = [live[at] for at in left]
        fed = slice(place, place + 1)
    return tokens, drawn


def _seen(documents: torch.Tensor, start: int) -> dict[str, torch.Tensor]:
    """The mask and positions of the tokens from `start` on, that see their own document's alone."""
    mask, positions = apart(documents)
    return {"attention_mask": mask[:, :, start:], "position_ids": positions[:, start:]}


def _chances(seed: int, place: int, length: int) -> torch.Tensor:
    """A row's random numbers: they depend on no other row, nor on who writes it."""
    drawn = hashlib.sha256(f"{seed}:own:{place}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(drawn[:7], "big"))
    return torch.rand(length, generator=generator, dtype=torch.float64)


def _check_answers(corpus: PackedCorpus, recipe: Recipe, marks: Marks) -> None:
    """Raises BuildError if no answer begins in the first windows of a training."""
    windows = training_windows(corpus, seed=recipe.seed, step=0, batch=_LOOKED_AT, sequence=recipe.sequence)
    for which in windows:
        ids = window(corpus, which, recipe.sequence).tolist()
        if next(conversation(ids, marks), None) is not None:
            return
    raise BuildError(
        f"on_policy.prompt is chat, and no answer begins in {_LOOKED_AT} sequences of the corpus: none has {marks.text!r}",
        hint="render conversations with the AnsNet's chat template, or set on_policy.prompt to a number of tokens",
    )


_LOOKED_AT: Final = 64
