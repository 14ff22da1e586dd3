"""Computes the size of a package from shapes alone.

Every weight matrix and table is counted as its precision stores it, what lies beside them is bounded. So an estimate is
never below the package that is built, and above it by little: see `tests/plan/test_package_size.py` for real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import lcm
from typing import Final

from colbuild.arch import Role, Shape, Structure
from colbuild.arch.architecture import axis_length, patterns
from colbuild.arch.table import TensorPattern
from colbuild.spec.model.device import Device, Profile
from colbuild.spec.model.family import DesNet
from colbuild.spec.model.precision import stored_bytes

TOKENIZER_ENTRY: Final = 144
"""Bytes of tokenizer.json for each entry of the vocabulary: no tokenizer looked at has more (SmolLM2's has 72, the largest,
whose merges are written as lists one word to a line, 134). The true number is only known when the AnsNet is converted."""

_TRAINED_ENTRY: Final = 96
"""The same in a package, of a vocabulary that is trained: English takes 30, scripts of three bytes a letter 80."""

_COMPANIONS: Final = 32_768
"""Configuration, chat template, manifest and the like: 4 to 5 kB in packages seen, a long chat template more."""

_GRAPH: Final = 8_192
_GRAPH_LAYER: Final = 7_168
"""The graph without its weights, and each layer's share: 1.5 kB and 5.6 kB in packages seen; biases would add 1 kB."""

_OLDER_LAYER: Final = 20_480
"""What a layer's graph has more in an older operator set, where attention is spelt out."""


def tokenizer_bound(vocab: int) -> int:
    """More bytes than the tokenizer's files of a vocabulary take."""
    return TOKENIZER_ENTRY * vocab


def trained_tokenizer(vocab: int) -> int:
    """More bytes than a package's tokenizer takes whose vocabulary is trained."""
    return _TRAINED_ENTRY * vocab


def package_bytes(structure: Structure, profile: Profile, tokenizer: int | None = None) -> int:
    """Bytes that a model's package for a profile takes at most.

    Args:
        structure: The model.
        profile: The device profile.
        tokenizer: Bytes of tokenizer.json where they are known; else they are bounded by the vocabulary.
    """
    shape, lengths = structure.shape, structure.lengths
    weights = 0
    for pattern in patterns(structure):
        sizes = tuple(axis_length(axis, lengths) for axis in pattern.axes)
        every = shape.layers if "{layer}" in pattern.name else 1
        whole = min(_layers_of_8_bits(pattern, profile), every)
        weights += whole * stored_bytes(8, sizes, profile.block)
        weights += (every - whole) * stored_bytes(profile.stored.bits, sizes, profile.block)
    rotary = 2 * profile.context * shape.head_dim // 2 * 4
    text = tokenizer_bound(shape.vocab) if tokenizer is None else tokenizer
    return weights + rotary + text + _COMPANIONS + _GRAPH + (_GRAPH_LAYER + spelt_out(profile)) * shape.layers


def spelt_out(profile: Device) -> int:
    """Bytes that each layer of a graph has more in the operator set that a profile asks for."""
    return 0 if profile.opset is None else _OLDER_LAYER


def limit_of(desnet: DesNet, profile: Profile) -> int | None:
    """The largest package of a DesNet for a profile: the smaller of both promises, None without any."""
    promised = [size for size in (desnet.max_package, profile.limits.max_package) if size is not None]
    return min(promised, default=None)


def over_limit(structure: Structure, desnet: DesNet, tokenizer: int | None) -> Profile | None:
    """The first profile of a DesNet whose limit its package would break in this structure; None if it keeps all."""
    for profile in desnet.exports:
        limit = limit_of(desnet, profile)
        if limit is not None and package_bytes(structure, profile, tokenizer) > limit:
            return profile
    return None


def fitting(start: Structure, desnet: DesNet, tokenizer: int | None) -> Callable[[Shape], bool]:
    """Returns a check whether a DesNet's packages keep their limits in a shape."""
    return lambda shape: over_limit(start.at(shape), desnet, tokenizer) is None


def ffn_multiple(desnet: DesNet) -> int:
    """Returns the common multiple of a DesNet's FFN width for all its profiles."""
    return lcm(*(profile.multiples.ffn for profile in desnet.exports))


_EVERY: Final = 2**31
_WORDS: Final = (Role.EMBEDDING, Role.HEAD)
_KINDS: Final[Mapping[str, Role]] = {
    **dict.fromkeys(("query", "key", "value"), Role.ATTENTION_IN),
    "output": Role.ATTENTION_OUT,
    **dict.fromkeys(("gate", "up"), Role.FFN_IN),
    "down": Role.FFN_OUT,
}


def _layers_of_8_bits(pattern: TensorPattern, profile: Profile) -> int:
    """In how many layers a matrix keeps 8 bits in a form of 4, at most: what is stacked is not told apart."""
    if not profile.fitted:
        return 0
    if pattern.role in _WORDS:
        return _EVERY if profile.embedding_bits == 8 else 0
    if pattern.role is Role.POSITION or any(_KINDS.get(kind) is pattern.role for kind in profile.keep_8bit):
        return _EVERY
    return sum(kind in profile.keep_8bit for kind in ("first", "last"))
