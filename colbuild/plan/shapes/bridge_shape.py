"""The bridge of a family: whether it is needed, the reason, and its shape.

::

    AnsNet (llama, 49,152 tokens) ──> bridge (gpt2, 50,304 tokens) ──> a100 ──> a76
                                      the head of the chain: every other member is a subset of it
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from colbuild.arch import ARCHITECTURES, Structure, bridged, parameters
from colbuild.arch.correspondence import approximations, lost_biases, unlike_norms
from colbuild.arch.solving import NoShapeError, solve_down
from colbuild.plan.shapes.by_hand import SIZE_HINT, RefusedError, completed, legal
from colbuild.spec import LoadedFamily, Problem, spec_error
from colbuild.spec.model.bridge import SAME, TrainedTokenizer
from colbuild.spec.model.family import Bridge
from colbuild.units import format_count

BRIDGE: Final = "bridge"
"""The bridge's name among the members, and its folder's in `out/`."""

ROWS: Final = 64
"""The embedding of a vocabulary from elsewhere has a multiple of as many rows, of which at least `SPARE` are free for the
special tokens that the AnsNet's chat needs."""

SPARE: Final = 16


@dataclass(frozen=True)
class Bridged:
    """The bridge that a family needs.

    Attributes:
        structure: What it is.
        reason: Why it is needed, in words.
        across: Whether its vocabulary is another than the AnsNet's.
        vocabulary: Ids of the tokenizer that it was asked for; None for one that is trained, or the AnsNet's.
        asked: What the spec says of it.
        approximate: Why a transplanted start does not compute what the AnsNet does, in words; nothing where it does.
    """

    structure: Structure
    reason: str
    across: bool
    vocabulary: int | None
    asked: Bridge
    approximate: tuple[str, ...] = ()


def tokenizer_source(bridge: Bridge | None) -> str | None:
    """Returns the source of a bridge's tokenizer; None for a trained one or the AnsNet's."""
    return (
        bridge.tokenizer
        if bridge is not None and isinstance(bridge.tokenizer, str) and bridge.tokenizer != SAME
        else None
    )


def rows_for(vocabulary: int) -> int:
    """Rows of the embedding for a vocabulary from elsewhere."""
    return -(-(vocabulary + SPARE) // ROWS) * ROWS


def solve_bridge(loaded: LoadedFamily, ansnet: Structure, vocabulary: int | None) -> Bridged | None:
    """The bridge of a family; None if it needs none, as its architecture and vocabulary are the AnsNet's.

    Args:
        loaded: The family.
        ansnet: The ancestor.
        vocabulary: Ids of the tokenizer that the spec names, if it names one.

    Raises:
        SpecError: Its shape or size cannot be.
    """
    bridge = loaded.family.bridge
    if bridge is None:
        return None
    architecture = ARCHITECTURES[bridge.architecture or ansnet.architecture.name]
    across = bridge.tokenizer != SAME
    reasons = []
    if architecture is not ansnet.architecture:
        reasons.append(f"the family is {architecture.name} and the AnsNet {ansnet.architecture.name}")
    rows = ansnet.shape.vocab
    if isinstance(bridge.tokenizer, TrainedTokenizer):
        rows = bridge.tokenizer.train
        reasons.append(f"it has its own vocabulary of {rows:,} tokens")
    elif across:
        if vocabulary is None:
            raise ValueError(f"the tokenizer {bridge.tokenizer} was not looked at")
        rows = rows_for(vocabulary)
        reasons.append(f"its vocabulary, of {vocabulary:,} tokens, is that of {bridge.tokenizer}")
    if not reasons:
        return None
    whole = bridged(ansnet, architecture, rows, bridge.positions)
    if bridge.start == "transplant":
        _refuse_unlike(loaded, ansnet, whole)
    structure = _sized(loaded, bridge, whole)
    return Bridged(structure, " and ".join(reasons), across, vocabulary, bridge, approximations(ansnet, whole))


def _refuse_unlike(loaded: LoadedFamily, ansnet: Structure, whole: Structure) -> None:
    """Raises SpecError if a transplant is worse than a guess: biases of the AnsNet are lost, or norms stand elsewhere."""
    lost, unlike = lost_biases(ansnet, whole), unlike_norms(ansnet, whole)
    if not lost and unlike is None:
        return
    ours = whole.architecture.name
    message = unlike or (
        f"the AnsNet ({ansnet.architecture.name}) has biases on {', '.join(lost)}, and {ours} has none"
    )
    others = {name: bridged(ansnet, other, whole.shape.vocab, None) for name, other in ARCHITECTURES.items()}
    able = [
        name for name, other in others.items() if not lost_biases(ansnet, other) and unlike_norms(ansnet, other) is None
    ]
    hint = f"choose architecture: {' or '.join(able)}, or set start: random"
    raise spec_error([Problem(loaded.places.nearest((BRIDGE, "architecture")), message, hint)])


def _sized(loaded: LoadedFamily, bridge: Bridge, whole: Structure) -> Structure:
    if bridge.shape is not None:
        shape = completed(bridge.shape, whole.shape)
        if bridge.shape.heads is not None and bridge.shape.kv_heads is None:
            group = whole.shape.heads // whole.shape.kv_heads
            shape = replace(shape, kv_heads=max(1, shape.heads // group))
        try:
            return whole.at(legal(loaded, (BRIDGE, "shape"), "the bridge", bridge.shape, whole, shape))
        except RefusedError as error:
            raise spec_error(error.problems) from None
    if bridge.params is None:
        return whole
    size, most = format_count(bridge.params), parameters(whole)
    place = loaded.places.nearest((BRIDGE, "params"))
    if bridge.params > most:
        message = (
            f"the bridge ({size}) would be larger than the AnsNet's shape with its vocabulary ({format_count(most)})"
        )
        raise spec_error([Problem(place, message, "remove 'params' to get this size")])
    try:
        return whole.at(solve_down(whole, whole.shape, bridge.params))
    except NoShapeError as error:
        raise spec_error([Problem(place, f"the bridge: {error}", SIZE_HINT)]) from None
