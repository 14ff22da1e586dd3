"""The memory that steps need at their peak, from shapes and parameters alone.

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
from math import ceil
from typing import Any, Final

from colbuild.arch import Structure, parameters
from colbuild.plan.cost.kept_activations import kept_bytes
from colbuild.spec.model.precision import COMPUTING, PRECISIONS
from colbuild.spec.model.recipe import Loss, Recipe

MICRO_TOKENS: Final = 2048
"""Tokens that pass through teacher and student at once on a CPU, where more are no faster and only take memory."""

GENERATED_AT_ONCE: Final = 64
"""Texts that are written at once; more are faster, and need memory for their keys and values."""

WINDOW: Final = 512
"""Tokens that models are measured and calibrated on at once."""

CHUNK: Final = 256
"""Tokens whose logits exist at once (`colbuild.train.losses.forward.CHUNK_TOKENS`)."""

COMPUTED: Final[Mapping[str, int]] = {name: row.bytes for name, row in COMPUTING.items()}
"""Bytes of a number that is computed with."""

PROCESSES: Final = 555_000_000
"""What the processes of a build have that have loaded the libraries, once a step has begun."""

STREAMED: Final = 480_000_000
"""The same for a step that computes with no model."""

_CONVERTING: Final = 515_000_000
"""The same for a step that converts a model, without its tokenizer."""

_TOKEN: Final = 1100
"""Bytes that a tokenizer has in memory for each of its tokens."""

_TRIED_TOKEN: Final = 1500
"""The same while it is tried in a process of its own, and read by transformers."""

_WRITING: Final = 100_000_000
"""What a step that writes texts has besides."""

_KERNEL: Final = 650_000
"""What remains of attention over each number of tokens, as measured: a shape of its own, for which oneDNN keeps kernels."""

_KERNELS: Final = 1024
"""How many such shapes count at most: what oneDNN's cache holds by default."""

_OTHER_TOKEN: Final = 1780
"""The same where a new tokenizer takes over what it says."""

_ROW_GROUP: Final = 105_000_000
"""What reading a text in columns takes."""

_COLUMNS: Final = ("parquet", "arrow")

_WORDS: Final = 20_000_000
"""Words and pairs of a tokenizer that is trained."""

ROUNDING: Final = 60_000_000
"""What rounding a model loads besides: what builds graphs."""

_WHOLE: Final = 4
_MASTERS: Final = 4 + 4 + 8
"""Bytes that training keeps of each weight: the fp32 master, its gradient, and Adam's two averages."""

_COMPARING: Final = 500_000_000
"""The same as `PROCESSES` for a package that is compared, without its tokenizer."""

_LONGEST: Final = 192
"""Tokens of the longest prompt that a package is compared on (`colbuild.export.package.parity.LONGEST`)."""

_COMPARED: Final = 8
"""How often the logits of that prompt are held while a package is compared, those of other prompts and of held-out text
counted with them."""

_HEAP: Final = 1.2
"""Tensors of many sizes that come and go leave holes in the heap: so much of it is needed for what is used of it."""

_COMPARED_STATES: Final = 3 * _WHOLE
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


def source_memory(model: Structure, *, coded: bool) -> int:
    """A model that is converted: all of its weights; those of a GGUF file on their way from codes, the largest in fp32."""
    shape = model.shape
    largest = 2 * _WHOLE * shape.hidden * max(shape.vocab, shape.ffn) if coded else 0
    return _CONVERTING + _TRIED_TOKEN * shape.vocab + model.stored * parameters(model) + largest


def corpus_memory(form: str, rows: int) -> int:
    """A text that is packed passes through in pieces.

    Args:
        form: The text's format.
        rows: Tokens of the vocabulary; 0 where that is not known.
    """
    return STREAMED + _TOKEN * rows + (_ROW_GROUP if form in _COLUMNS else 0)


def tokenizer_memory(form: str, rows: int) -> int:
    """The words of a text, counted, the pairs that they are made of, and the AnsNet's tokenizer, which has so many tokens."""
    return corpus_memory(form, 0) + _WORDS + _OTHER_TOKEN * rows


def order_memory(model: Structure, computed: int) -> int:
    """A model as it is read, as it computes, and as it is ordered."""
    return PROCESSES + (2 * model.stored + computed) * parameters(model) + _block(model, WINDOW, computed)


def align_memory(model: Structure, teacher: Structure, tokens: int, computed: int) -> int:
    """Two models and all that passed through them on calibration text in fp32; weights in fp64 while they are matched.

    The embedding is turned as a whole, in fp64, and kept in fp32 besides.
    """
    weights = sum((one.stored + computed) * parameters(one) for one in (model, teacher))
    seen = sum(_collected(one, tokens) + _block(one, tokens, computed) for one in (model, teacher))
    turned = (8 + _WHOLE) * model.shape.vocab * model.shape.hidden
    return PROCESSES + weights + round(_HEAP * seen) + 3 * 8 * parameters(model) + turned


def evaluate_memory(models: list[Structure], computed: int) -> int:
    """Models that score a window at a time; each is read into memory before it is computed with."""
    weights = sum(computed * parameters(one) for one in models)
    first = models[0]
    scored = _scored(first, computed, compared=len(models) > 1)
    return PROCESSES + weights + max(models[-1].stored * parameters(models[-1]), scored)


def interpolate_memory(made: Structure, ends: list[Structure], computed: int) -> int:
    """Both ends as they are read, the mixture as it is stored and as it computes, and its logits."""
    weights = sum(one.stored * parameters(one) for one in (made, *ends)) + computed * parameters(made)
    return PROCESSES + weights + _scored(made, computed, compared=False)


def mixed_memory() -> int:
    """A mixture that is given is written some rows at a time."""
    return STREAMED


def generate_memory(model: Structure, length: int, computed: int) -> int:
    """A model with the keys and values of many texts, and each text's logits: as computed, and four times in fp32."""
    shape = model.shape
    cache = 2 * computed * GENERATED_AT_ONCE * length * shape.layers * shape.kv_heads * shape.head_dim
    logits = (computed + 4 * _WHOLE) * GENERATED_AT_ONCE * shape.vocab
    stored = model.stored if model.stored != computed else 0
    weights = (computed + stored) * parameters(model)
    kernels = _KERNEL * min(length, _KERNELS)
    return PROCESSES + _WRITING + weights + cache + logits + kernels + _TOKEN * shape.vocab


def teach_memory(teacher: Structure, params: Mapping[str, Any]) -> int:
    """A teacher that runs forward, and the likelihoods that are drawn from."""
    computed = COMPUTED[params["precision"]]
    tokens = max(params["sequence"], MICRO_TOKENS)
    chunks = 5 if params["type"] == "sampled" else 3
    logits = (computed + chunks * _WHOLE) * CHUNK * teacher.shape.vocab
    weights = computed * parameters(teacher)
    used = max(teacher.stored * parameters(teacher), logits + round(_HEAP * _block(teacher, tokens, computed)))
    return PROCESSES + weights + used


def export_memory(model: Structure, precision: str, context: int) -> int:
    """The package's session and what it is compared with: logits of prompts, of PyTorch and of the package."""
    packed = PRECISIONS[precision].packed * model.shape.vocab * model.shape.hidden
    weights = _WHOLE * parameters(model) + round(packed) + 2 * _TOKEN * model.shape.vocab
    return _COMPARING + weights + _COMPARED * _WHOLE * min(_LONGEST, context) * model.shape.vocab


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
    weights = parameters(student) * (student.stored + computed + _MASTERS)
    weights += parameters(teacher) * (teacher.stored + (computed if online else 0))
    passing = _passing(student, smallest, recipe, tokens)
    gradient = _head_gradient(student, recipe)
    return PROCESSES + weights + round(_HEAP * (passing + _loss(student, teacher, recipe) + gradient))


def quantise_memory(model: Structure, recipe: Recipe, tokens: int) -> int:
    """A model that trains scales towards itself: codes take a byte; no weight has a master, a gradient and averages.

    The embedding is rounded beside the one that is read: codes, and both in fp32.
    """
    computed = COMPUTED[recipe.precision]
    weights = parameters(model) * (2 * (model.stored + computed) + 1 + _WHOLE)
    weights += (1 + 2 * _WHOLE) * model.shape.vocab * model.shape.hidden
    used = _activations(model, recipe, tokens) + _loss(model, model, recipe)
    return PROCESSES + ROUNDING + weights + round(_HEAP * used)


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
    nested = 2 * _WHOLE if recipe.elastic is not None else 0
    return (_WHOLE + 2 * COMPUTED[recipe.precision] + nested) * numbers


def _loss(student: Structure, teacher: Structure, recipe: Recipe) -> int:
    """Logits of a chunk."""
    computed, vocab = COMPUTED[recipe.precision], student.shape.vocab
    wide = _WHOLE * CHUNK * max(vocab, teacher.shape.vocab)
    narrow = computed * CHUNK * vocab if computed != _WHOLE else 0
    spelled = _SPELLING if vocab != teacher.shape.vocab else 0
    return narrow + _chunks(student, teacher, recipe) * wide + spelled


def _chunks(student: Structure, teacher: Structure, recipe: Recipe) -> int:
    if student.shape.vocab != teacher.shape.vocab:
        return _ACROSS
    loss: Loss = recipe.loss
    if recipe.teacher == "cached":
        return _SAMPLED[recipe.teacher_cache.type] + (_SOFTENED if loss.temperature != 1.0 else 0)
    return _LOSSES[loss.type] + (_SOFTENED if loss.temperature != 1.0 else 0)


def _scored(model: Structure, computed: int, *, compared: bool) -> int:
    """Logits of a chunk that is scored: as computed, in fp32, their log-likelihoods, and those of a reference."""
    logits = (computed + (3 if compared else 2) * _WHOLE) * CHUNK * model.shape.vocab
    return logits + round(_HEAP * _block(model, WINDOW, computed))


def _block(model: Structure, tokens: int, computed: int) -> int:
    """What one block computes of some tokens, nothing of which is kept."""
    return tokens * kept_bytes(model, WINDOW, computed) // model.shape.layers


def _collected(model: Structure, tokens: int) -> int:
    """What norms and output projections read and blocks add, in fp32 (`colbuild.weights.prefix.captured`)."""
    shape = model.shape
    block = 3 * shape.hidden + shape.heads * shape.head_dim + shape.ffn
    return _WHOLE * tokens * shape.layers * block
