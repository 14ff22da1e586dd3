"""The structure of a model in another architecture or vocabulary than the model that it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from colbuild.arch.architecture import Structure
from colbuild.arch.correspondence import biased
from colbuild.arch.shape import Shape
from colbuild.arch.table import Architecture, Role

LEARNED_POSITIONS: Final = 1024
"""How many positions an architecture that has parameters for each of them gets where nobody says otherwise."""

_TIED: Final = "tie_word_embeddings"
_BIASES: Final = {
    "attention_bias": {Role.ATTENTION_IN, Role.ATTENTION_OUT},
    "mlp_bias": {Role.FFN_IN, Role.FFN_OUT},
}
"""The flags that give projections of some roles a bias."""


def bridged(ansnet: Structure, architecture: Architecture, vocab: int, positions: int | None) -> Structure:
    """A model of the AnsNet's lengths, as far as the architecture has them, and of another vocabulary.

    Args:
        ansnet: The model that it follows.
        architecture: Its own table.
        vocab: Rows of its embedding.
        positions: How many it has, if each has parameters of its own; by default `LEARNED_POSITIONS`.
    """
    shape = replace(ansnet.shape, vocab=vocab)
    if "kv_heads" not in architecture.config_keys:
        shape = replace(shape, kv_heads=shape.heads)
    if architecture.ties_widths and shape.hidden != shape.heads * shape.head_dim:
        # As many heads of the same width as fit; what is copied from a head stays whole.
        heads = max(1, shape.hidden // shape.head_dim)
        shape = replace(shape, heads=heads, kv_heads=heads, hidden=heads * shape.head_dim)
    same = architecture is ansnet.architecture
    flags = ansnet.flags if same else _flags(architecture, ansnet)
    fixed = dict.fromkeys(architecture.fixed, positions or LEARNED_POSITIONS)
    if same and positions is None:
        fixed = dict(ansnet.fixed)
    return Structure(architecture, shape, flags, frozenset(fixed.items()), ansnet.stored)


def _flags(architecture: Architecture, ansnet: Structure) -> frozenset[tuple[str, bool]]:
    """The head is tied as the AnsNet's is, and there is a place for each bias that it has, where the architecture has one."""
    theirs = {flag: value for flag, value in ansnet.flags if flag == _TIED}
    theirs |= {flag: True for flag, roles in _BIASES.items() if biased(ansnet) & roles}
    return frozenset((flag, theirs.get(flag, usual)) for flag, usual in architecture.flags.items())


def structure_to_json(structure: Structure) -> dict[str, Any]:
    """A structure as JSON values."""
    return {
        "architecture": structure.architecture.name,
        "shape": asdict(structure.shape),
        "flags": dict(sorted(structure.flags)),
        "fixed": dict(sorted(structure.fixed)),
    }


def structure_from_json(values: Mapping[str, Any], architectures: Mapping[str, Architecture]) -> Structure:
    """The structure that `structure_to_json` wrote, of one of some architectures."""
    return Structure(
        architectures[values["architecture"]],
        Shape(**values["shape"]),
        frozenset(values["flags"].items()),
        frozenset(values["fixed"].items()),
    )
