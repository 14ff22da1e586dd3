"""The peak memory of steps, from shapes and parameters alone.

All that a build has while it runs a step is counted: its own process, the nursery that the step's process is forked from,
that process, and what it starts. So the figure is what a machine must have to run the step alone. `tests.benchmarks.memory`
compares it with measurements. What is counted mirrors the operations in `colbuild/ops`::

    processes    Python and the libraries
    weights      as stored (read into memory, or mapped from a file), as computed with, and what training keeps of each
    activations  what blocks keep of the tokens that pass through at once
    logits       a chunk of tokens by the vocabulary, as often as it exists at once
    heap         what the allocator cannot use again
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod
from typing import Final

from colbuild.arch import Structure, parameters
from colbuild.plan.workload.at_once import CHUNK_TOKENS, WINDOW, WRITTEN_AT_ONCE
from colbuild.plan.workload.kept_activations import kept_bytes
from colbuild.plan.workload.kept_embeddings import embeddings, keeps_embeddings
from colbuild.spec.model.precision import COMPUTING
from colbuild.spec.model.recipe import Loss, Recipe

COMPUTED: Final[Mapping[str, int]] = {name: row.bytes for name, row in COMPUTING.items()}
"""Bytes of a number that is computed with."""

PROCESSES: Final = 555_000_000
"""What the processes of a build have that have loaded the libraries, once a step has begun."""

STREAMED: Final = 480_000_000
"""The same for a step that computes with no model."""

TOKEN: Final = 1100
"""Bytes that a tokenizer has in memory for each of its tokens."""

TRIED_TOKEN: Final = 1500
"""The same while it is tried in a process of its own, and read by transformers."""

ROUNDING: Final = 60_000_000
"""What rounding a model loads besides: what builds graphs."""

KERNEL: Final = 650_000
"""Memory that remains of attention over each number of tokens, as measured: oneDNN keeps kernels for each shape."""

KERNELS: Final = 1024
"""The most shapes that oneDNN's cache keeps kernels for by default."""

FULL: Final = 4
"""Bytes of a number in fp32."""

FORWARD: Final = 2
"""Bytes of a number that models compute with that are not trained."""

_MASTERS: Final = 4 + 4 + 8
"""Bytes that training keeps of each weight: the fp32 master, its gradient, and Adam's two averages."""

HEAP: Final = 1.2
"""Tensors of many sizes that come and go leave holes in the heap: so much of it is needed for what is used of it."""

_COMPARED_STATES: Final = 3 * FULL
"""Bytes of a hidden channel that comparing hidden states keeps: both in fp32 and their difference."""

_SOFTENED: Final = 3
"""Chunks in fp32 that a temperature other than 1 costs: softened logits, and likelihoods that find no memory to use again."""

_LOSSES: Final[Mapping[str, int]] = {"forward_kl": 4, "reverse_kl": 4, "skew_kl": 6, "skew_rkl": 7, "jsd": 6}
"""Chunks in fp32 that exist at once in a divergence from a teacher that computes: logits and log-likelihoods of both."""

_ACROSS: Final = 8
"""The same where the vocabularies differ, whose gradient is autograd's."""

_SPELLING: Final = 40_000_000
"""What two vocabularies are compared by."""

_SAMPLED: Final[Mapping[str, int]] = {"sampled": 2, "top_k": 5}
"""The same where the teacher's lessons are read."""


def training_memory(student: Structure, smallest: Structure, teacher: Structure, recipe: Recipe, tokens: int) -> int:
    """A student that is trained beside its teacher, or by lessons, with so many tokens at once.

    Args:
        student: The largest shape that tokens pass through.
        smallest: The smallest one, the same where the training is not elastic.
        teacher: What it learns from.
        recipe: How it learns.
        tokens: How many pass through at once.
    """
    computed = COMPUTED[recipe.precision]
    online = recipe.teacher == "online"
    kept = _kept(student, smallest, teacher, recipe)
    weights = parameters(student) * (student.stored + computed) + (parameters(student) - kept) * _MASTERS
    weights += parameters(teacher) * (teacher.stored + (computed if online else 0))
    passing = _passing(student, smallest, recipe, tokens)
    head = 0 if kept else _head_gradient(student, recipe)
    training = passing + _loss(student, teacher, recipe) + head
    writing, kernels = _writing(student, recipe)
    return PROCESSES + weights + kernels + round(HEAP * max(training, writing))


def _kept(student: Structure, smallest: Structure, teacher: Structure, recipe: Recipe) -> int:
    """The number of parameters that are not trained."""
    if not keeps_embeddings(recipe, student, smallest, teacher):
        return 0
    return sum(prod(tensor.lengths) for tensor in embeddings(student))


def _writing(student: Structure, recipe: Recipe) -> tuple[int, int]:
    """(what a student holds of the texts that it writes at once, what remains of it): between two steps, without gradients."""
    asked, shape, computed = recipe.on_policy, student.shape, COMPUTED[recipe.precision]
    if asked is None:
        return 0, 0
    texts = min(WRITTEN_AT_ONCE, ceil(asked.every * recipe.batch * asked.share))
    cache = 2 * computed * texts * (recipe.sequence + 1) * shape.layers * shape.kv_heads * shape.head_dim
    # Logits as computed, and four times in fp32, as where the AnsNet writes a corpus.
    logits = (computed + 4 * FULL) * texts * shape.vocab
    prompt = asked.prompt if isinstance(asked.prompt, int) else 0
    return cache + logits + block_bytes(student, texts * prompt, computed), KERNEL * min(recipe.sequence, KERNELS)


def quantise_memory(model: Structure, recipe: Recipe, tokens: int) -> int:
    """A model that trains scales towards itself: codes take a byte; no weight has a master, a gradient and averages.

    The embedding is rounded beside the one that is read: codes, and both in fp32.
    """
    computed = COMPUTED[recipe.precision]
    weights = parameters(model) * (2 * (model.stored + computed) + 1 + FULL)
    weights += (1 + 2 * FULL) * model.shape.vocab * model.shape.hidden
    used = _activations(model, recipe, tokens) + _loss(model, model, recipe)
    return PROCESSES + ROUNDING + weights + round(HEAP * used)


def _passing(student: Structure, smallest: Structure, recipe: Recipe, tokens: int) -> int:
    """What the largest of a step's passes keeps; they come one after the other."""
    if recipe.elastic is None:
        return _activations(student, recipe, tokens)
    most = tokens // recipe.sequence
    ends = 1.0 - recipe.elastic.share
    shares = (ends * recipe.elastic.larger_end, recipe.elastic.share, ends * (1.0 - recipe.elastic.larger_end))
    full, between, least = (recipe.sequence * min(most, ceil(recipe.batch * share)) for share in shares)
    larger, smaller = (_activations(model, recipe, 1) for model in (student, smallest))
    return max(full * larger, between * (larger + smaller) // 2, least * smaller)


def _activations(student: Structure, recipe: Recipe, tokens: int) -> int:
    """What the student keeps of so many tokens for the backward pass."""
    computed, shape = COMPUTED[recipe.precision], student.shape
    token = kept_bytes(student, recipe.sequence, computed)
    if recipe.gradient_checkpointing == "always":
        # Each block's input, and one block in full.
        token = token // shape.layers + computed * shape.hidden * shape.layers
    compared = recipe.teacher == "online" and recipe.loss.hidden_weight != 0
    states = shape.layers * shape.hidden * (computed + _COMPARED_STATES) if compared else 0
    return tokens * (token + 8 * shape.hidden + states)


def _head_gradient(student: Structure, recipe: Recipe) -> int:
    """The gradient of a head that is trained: in fp32, a chunk's, and as it is kept, twice; those of sub-shapes besides."""
    numbers = student.shape.vocab * student.shape.hidden
    nested = 2 * FULL if recipe.elastic is not None else 0
    return (FULL + 2 * COMPUTED[recipe.precision] + nested) * numbers


def _loss(student: Structure, teacher: Structure, recipe: Recipe) -> int:
    """Logits of a chunk."""
    computed, vocab = COMPUTED[recipe.precision], student.shape.vocab
    wide = FULL * CHUNK_TOKENS * max(vocab, teacher.shape.vocab)
    narrow = computed * CHUNK_TOKENS * vocab if computed != FULL else 0
    spelled = _SPELLING if vocab != teacher.shape.vocab else 0
    return narrow + _chunks(student, teacher, recipe) * wide + spelled


def _chunks(student: Structure, teacher: Structure, recipe: Recipe) -> int:
    if student.shape.vocab != teacher.shape.vocab:
        return _ACROSS
    loss: Loss = recipe.loss
    if recipe.teacher == "cached":
        return _SAMPLED[recipe.teacher_cache.type] + (_SOFTENED if loss.temperature != 1.0 else 0)
    return _LOSSES[loss.type] + (_SOFTENED if loss.temperature != 1.0 else 0)


def scored_bytes(model: Structure, computed: int, *, compared: bool) -> int:
    """Logits of a chunk that is scored: as computed, in fp32, their log-likelihoods, and those of a reference."""
    logits = (computed + (3 if compared else 2) * FULL) * CHUNK_TOKENS * model.shape.vocab
    return logits + round(HEAP * block_bytes(model, WINDOW, computed))


def block_bytes(model: Structure, tokens: int, computed: int) -> int:
    """Returns the bytes of one block's temporary tensors for some tokens."""
    return tokens * kept_bytes(model, WINDOW, computed) // model.shape.layers
