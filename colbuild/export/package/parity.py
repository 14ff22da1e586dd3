"""Compares a package's logits with the PyTorch model's, on fixed prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy
import numpy.typing
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from colbuild.errors import BuildError
from colbuild.export.manifest import Parity, Sample
from colbuild.export.runtime.session import Decoder, Ids, Logits, feed, feed_whole, generate_tokens
from colbuild.plan.workload.at_once import LONGEST_PROMPT
from colbuild.spec.model.precision import Bound
from colbuild.train.corpus.text_beginning import beginning, text_ids

SEED: Final = 20_260_101
CHUNK_ROWS: Final = 16
SAMPLE_TOKENS: Final = 16
ENGLISH: Final = (
    "The harbour was quiet when the first boats came home. Two men carried a basket of fish up the stone steps, "
    "and an old dog followed them with great hope. In the kitchen above the shop, Maria had already lit the stove, "
    "cut the bread and put the large pan on the fire. Nobody in the house spoke before the coffee was ready; that was "
    "the rule, and even the children kept it. Outside, the wind turned to the north-west and brought 12 degrees less "
    "than the day before. By noon the square was full of people who had come to see the new clock, which had cost the "
    "town $4,500 and three years of argument. It struck twelve, eleven times. The mayor laughed first."
)
OPENING: Final = "The first boats came home, and in the kitchen above the shop"


@dataclass(frozen=True)
class Prompt:
    """Token ids to compare on.

    Attributes:
        name: What it tries.
        ids: [batch, length].
        mask: 1 for tokens, 0 for the padding on their left: [batch, length].
        pieces: Lengths in which the package is fed, each after the cache of those before.
    """

    name: str
    ids: Ids
    mask: Ids
    pieces: tuple[int, ...]

    @property
    def real(self) -> numpy.typing.NDArray[numpy.bool_]:
        """The mask of tokens without padding: [batch, length]."""
        return self.mask.astype(bool)


def parity_prompts(vocab: int, context: int, tokenizer: Tokenizer | None) -> tuple[Prompt, ...]:
    """Short, long, padded and token by token; with a tokenizer also English text, and its beginning in front of each."""
    random = numpy.random.default_rng(SEED)
    begin = () if tokenizer is None else beginning(tokenizer)
    front = numpy.array([begin], numpy.int64)

    def draw(length: int) -> Ids:
        drawn = random.integers(0, vocab, (1, min(length, context)), dtype=numpy.int64)
        return numpy.concatenate([front, drawn], axis=1)[:, :context]

    rows = [draw(length) for length in (5, 17, 11)]
    width = max(row.shape[1] for row in rows)
    padded = numpy.concatenate([numpy.pad(row, ((0, 0), (width - row.shape[1], 0))) for row in rows])
    mask = numpy.concatenate([numpy.pad(numpy.ones_like(row), ((0, 0), (width - row.shape[1], 0))) for row in rows])
    short, long, cached = draw(7), draw(LONGEST_PROMPT), draw(24)
    found = [
        _whole("short", short),
        _whole("long", long),
        Prompt("batch, padded on the left", padded, mask, (width,)),
        Prompt("batch, padded on the left, in pieces", padded, mask, (width - width // 2, *[1] * (width // 2))),
        Prompt("token by token", cached, numpy.ones_like(cached), (1,) * cached.shape[1]),
    ]
    if tokenizer is not None and (english := text_ids(tokenizer, ENGLISH)[:context]):
        found.append(_whole("English", numpy.array([english], numpy.int64)))
    return tuple(found)


def _whole(name: str, ids: Ids) -> Prompt:
    return Prompt(name, ids, numpy.ones_like(ids), (ids.shape[1],))


def reference_logits(model: PreTrainedModel, prompts: Sequence[Prompt]) -> list[Logits]:
    """The PyTorch model's logits at each prompt's tokens, padding left out: [tokens, vocab]."""
    return [_reference(model, prompt) for prompt in prompts]


def _reference(model: PreTrainedModel, prompt: Prompt) -> Logits:
    mask = torch.from_numpy(prompt.mask)
    with torch.inference_mode(), _one_thread():
        output = model(
            input_ids=torch.from_numpy(prompt.ids),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        )
    logits: Logits = output.logits.float().numpy()[prompt.real]
    return logits


def logits_of(model: PreTrainedModel, ids: torch.Tensor) -> Logits:
    """The PyTorch model's logits for one text [1, length]: [length, vocab]."""
    with torch.inference_mode(), _one_thread():
        logits: Logits = model(input_ids=ids, use_cache=False).logits[0].float().numpy()
    return logits


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums come out in the same order on every run only if one thread makes them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def package_logits(decoder: Decoder, prompt: Prompt) -> Logits:
    """The package's logits at a prompt's tokens, padding left out: [tokens, vocab]."""
    if decoder.graph.sequence is not None:
        rows = [prompt.ids[row][prompt.real[row]] for row in range(len(prompt.ids))]
        return numpy.concatenate([feed_whole(decoder, row.tolist()) for row in rows])
    parts = [logits for logits, _ in feed(decoder, prompt.ids, prompt.mask, prompt.pieces)]
    whole: Logits = numpy.concatenate(parts, axis=1)[prompt.real]
    return whole


@dataclass(frozen=True)
class _Sums:
    """Sums over compared positions."""

    error: float = 0.0
    power: float = 0.0
    kl: float = 0.0
    agreed: int = 0
    tokens: int = 0
    nats: float = 0.0
    predictions: int = 0

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def compare(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    references: Sequence[Logits],
    told: Callable[[int], None] = lambda _: None,
) -> Parity:
    """Compares a package with the PyTorch model.

    Args:
        decoder: The package's graph.
        prompts: What to compare on.
        references: The PyTorch model's logits for each of them, as `reference_logits` gives them.
        told: Called with the number of prompts done.

    Raises:
        BuildError: Either of them has logits that are not finite.
    """
    sums, differences = _Sums(), {}
    for done, (prompt, reference) in enumerate(zip(prompts, references, strict=True), 1):
        ours = package_logits(decoder, prompt)
        _check_finite(reference, "the PyTorch model", prompt)
        _check_finite(ours, "the package", prompt)
        targets, apart = _targets(prompt), 0.0
        for start in range(0, len(ours), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            apart = max(apart, float(numpy.abs(ours[part] - reference[part]).max()))
            sums = sums.plus(_score(ours[part], reference[part], targets[part]))
        differences[prompt.name] = rounded(apart)
        told(done)
    return Parity(
        prompts=differences,
        max_difference=max(differences.values()),
        relative_error=rounded((sums.error / sums.power) ** 0.5 if sums.power else 0.0),
        mean_kl=rounded(sums.kl / sums.tokens),
        top1_agreement=rounded(sums.agreed / sums.tokens),
        loss_increase=rounded(sums.nats / max(1, sums.predictions)),
        tokens=sums.tokens,
    )


def _check_finite(logits: Logits, whose: str, prompt: Prompt) -> None:
    if not numpy.isfinite(logits).all():
        raise BuildError(
            f"{whose} gives NaN or infinite logits on the prompt '{prompt.name}'",
            hint="check the model's loss: a diverged training looks like this",
        )


def _targets(prompt: Prompt) -> Ids:
    """The token that follows each real token, -1 at a row's end: [tokens]."""
    following = numpy.pad(prompt.ids[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    chosen: Ids = following[prompt.real]
    return chosen


def _score(ours: Logits, reference: Logits, targets: Ids) -> _Sums:
    mine, theirs = ours.astype(numpy.float64), reference.astype(numpy.float64)
    # A constant added to all logits of a position changes no probability.
    mine -= mine.mean(axis=1, keepdims=True)
    theirs -= theirs.mean(axis=1, keepdims=True)
    log_mine, log_theirs = (part - log_sum_exp(part) for part in (mine, theirs))
    followed = numpy.flatnonzero(targets >= 0)
    gaps = log_theirs[followed, targets[followed]] - log_mine[followed, targets[followed]]
    return _Sums(
        error=float(((mine - theirs) ** 2).sum()),
        power=float((theirs**2).sum()),
        kl=float((numpy.exp(log_theirs) * (log_theirs - log_mine)).sum()),
        agreed=int((mine.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
        tokens=len(ours),
        nats=float(gaps.sum()),
        predictions=len(followed),
    )


def log_sum_exp(rows: numpy.typing.NDArray[numpy.float64]) -> numpy.typing.NDArray[numpy.float64]:
    """Of each row: [rows, 1]."""
    highest = rows.max(axis=1, keepdims=True)
    total: numpy.typing.NDArray[numpy.float64] = highest + numpy.log(
        numpy.exp(rows - highest).sum(axis=1, keepdims=True)
    )
    return total


def rounded(number: float, digits: int = 3) -> float:
    """Three significant digits: what is beyond them says nothing."""
    return float(f"{number:.{digits}g}")


_MEANINGS: Final = {
    "max_difference": "the largest difference of a logit",
    "relative_error": "the relative error of the logits",
}


def check_bound(parity: Parity, bound: Bound) -> None:
    """Fails an export whose package does not compute what the model does.

    Raises:
        BuildError: The bound is broken; names the prompt where it is worst.
    """
    value: float = getattr(parity, bound.measure)
    if value > bound.most:
        worst = max(parity.prompts, key=lambda name: parity.prompts[name])
        raise BuildError(
            f"the package's logits differ from the PyTorch model's: {_MEANINGS[bound.measure]} is {value:.3g}, and at most "
            f"{bound.most:g} is allowed; worst on the prompt '{worst}', where a logit differs by "
            f"{parity.prompts[worst]:.3g}",
            hint="this is a fault of the export, not of your files: please report it with the model's config.json",
        )


def sample(decoder: Decoder, vocab: int, context: int, tokenizer: Tokenizer | None) -> Sample:
    """A short greedy generation, for the manifest."""
    opening = text_ids(tokenizer, OPENING) if tokenizer is not None else []
    ids = list(opening or parity_prompts(vocab, context, None)[0].ids[0].tolist())[: max(1, context - SAMPLE_TOKENS)]
    margins: list[float] = []

    def choose(logits: Logits) -> int:
        second, first = numpy.partition(logits, -2)[-2:].tolist()
        margins.append(first - second)
        return int(logits.argmax())

    tokens = tuple(generate_tokens(decoder, ids, choose, min(SAMPLE_TOKENS, context - len(ids))))
    return Sample(prompt=tuple(ids), tokens=tokens, margin=rounded(min(margins, default=0.0)))
