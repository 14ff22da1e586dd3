"""A model of another architecture, shape and vocabulary, started from a pretrained one.

- Body: the ordered model's subset at the new lengths, block by block. What both architectures have is copied: norms, queries,
  keys, values and output always (grouped keys and values once for each head that reads them), the FFN where both are gated or
  neither is. Of a gated FFN the gate becomes a plain one's only input projection. What one of them lacks is translated
  (`colbuild.weights.bridge.translation`), and what such a block puts out is fitted (`colbuild.weights.bridge.follow`). What
  has no counterpart is drawn at random: learned positions, further channels and layers. A bias that cannot be held is
  refused.
- Embedding: a token that both vocabularies spell alike is copied. Any other is composed of tokens that spell parts of it: those
  that overlap with it one after the other, by the share of its bytes, and those that orthogonal matching pursuit finds (Tropp
  and Gilbert 2007; for vocabularies arXiv 2506.06607, which pursues another model's embeddings; here, where there is no other
  model, byte n-grams are pursued).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, Protocol

import numpy as np
import torch

from colbuild.arch import Role, Shape, Structure, Tensor, scalars_of, tensors
from colbuild.arch.correspondence import lost_biases, unlike_norms
from colbuild.errors import BuildError
from colbuild.weights.bridge.blocks import inside_norms, read_block, write_block
from colbuild.weights.bridge.learned_positions import read_rotary
from colbuild.weights.bridge.translation import Change, translated
from colbuild.weights.files.checkpoint import Checkpoint
from colbuild.weights.prefix.subset import subset

INITIAL: Final = 0.02
"""Standard deviation of what is drawn by lot."""

_GRAMS: Final = 4
_PARTS: Final = 8
_ENOUGH: Final = 1e-3
_LEAST: Final = 0.5
_TINY: Final = 1e-6
_RARE: Final = 0.85
"""How long a composed row is beside what it is made of: whole ones would often be likelier than what stands there."""
_BEGIN, _END = b"\x02", b"\x03"


class Spelled(Protocol):
    """A vocabulary, of which `colbuild.train.across.spelling.Spelling` is one."""

    @property
    def spelled(self) -> Sequence[bytes | None]:
        """For each id what it spells."""

    @property
    def by_bytes(self) -> Mapping[bytes, int]:
        """Spelled bytes -> id."""

    def prefix(self, text: bytes) -> int | None:
        """The longest token that a text begins with; None if there is none."""


def random_start(structure: Structure, seed: int) -> dict[str, torch.Tensor]:
    """Weights [fp32] of a model that knows nothing: norms that change nothing, no biases, all else drawn by lot."""
    generator = torch.Generator().manual_seed(seed)
    return {tensor.name: _drawn(tensor, structure, generator) for tensor in tensors(structure)}


def transplant_body(
    ordered: Checkpoint, structure: Structure, seed: int, lengths: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The weights [fp32] of a model of another architecture and shape but the same vocabulary, as far as they correspond.

    Args:
        ordered: The model that is transplanted.
        structure: What it is transplanted into.
        seed: Decides what is drawn at random.
        lengths: What `colbuild.weights.bridge.foreign_norms.inverse_lengths` says of the norms of `inner_model` that the new
            architecture has no place for.

    Raises:
        BuildError: The new architecture has no place for a bias that nothing makes up for, or its norms stand elsewhere.
    """
    unlike = unlike_norms(ordered.structure, structure)
    if unlike is not None:
        raise BuildError(unlike, hint="choose another architecture for the bridge, or set start: random")
    lost = lost_biases(ordered.structure, structure)
    if lost:
        raise BuildError(
            f"{structure.architecture.name} has no biases for {', '.join(lost)}, and the AnsNet has them",
            hint="choose another architecture for the bridge, or set start: random",
        )
    inner = inner_model(ordered, structure)
    weights = random_start(structure, seed)
    change = Change(inner.structure, structure, inner.config, _turned(inner))
    for layer in range(inner.structure.shape.layers):
        measured = {part: (lengths or {}).get(name) for part, name in inside_norms(inner.structure, layer).items()}
        found = {part: length for part, length in measured.items() if length is not None}
        block = translated(read_block(inner.structure, inner.tensors, layer), change, found)
        for name, tensor in write_block(structure, block, layer).items():
            _paste(weights, name, tensor)
    _outer(inner, structure, weights)
    return weights


def inner_model(ordered: Checkpoint, structure: Structure) -> Checkpoint:
    """The part of a model that a structure has room for: what is transplanted into it."""
    return subset(ordered, _inside(ordered.structure.shape, structure.shape))


@dataclass(frozen=True)
class Composed:
    """The old tokens that a new token's embedding is composed of.

    Attributes:
        same: The id of the old token that it is; None for one that is composed.
        overlap: Old ids that spell it one after the other, and the share of its bytes that each spells.
        pursued: Old ids whose n-grams its own are a sum of, and their shares; 1 in all.
    """

    same: int | None = None
    overlap: tuple[tuple[int, float], ...] = ()
    pursued: tuple[tuple[int, float], ...] = ()


def compose(new: Spelled, old: Spelled, rows: int, special: Mapping[int, int]) -> list[Composed]:
    """For each of `rows` new ids what its embedding is made of; nothing for ids that spell nothing.

    Args:
        new: The new vocabulary.
        old: The old one.
        rows: Of the new embedding.
        special: New id -> old id of tokens that stand for each other whatever they spell.
    """
    found = []
    for index in range(rows):
        token = new.spelled[index] if index < len(new.spelled) else None
        if index in special:
            found.append(Composed(special[index]))
        elif not token:
            found.append(Composed())
        elif token in old.by_bytes:
            found.append(Composed(old.by_bytes[token]))
        else:
            found.append(Composed(None, _overlap(token, old), _pursued(token, old.by_bytes)))
    return found


def transplant_rows(matrix: torch.Tensor, parts: Sequence[Composed]) -> torch.Tensor:
    """New rows [new vocabulary, width] out of old ones; a row made of nothing is the mean of all.

    A composed row is the mean of what overlap and pursuit say, the latter no longer than rows are on average, as a sum of
    several would make its token likelier than any; and a little shorter, since most of what is composed is rare.
    """
    old = matrix.float()
    mean, length = old.mean(dim=0), old.norm(dim=1).mean()
    rows = mean.repeat(len(parts), 1)
    for index, part in enumerate(parts):
        if part.same is not None:
            rows[index] = old[part.same]
            continue
        sums = [_sum(old, shares) for shares in (part.overlap, part.pursued) if shares]
        if sums:
            sums[-1] *= (length / sums[-1].norm().clamp_min(_TINY)).clamp(max=1.0)
            rows[index] = torch.stack(sums).mean(dim=0) * _RARE
    return rows


# -- the body ---------------------------------------------------------------------------------------------------------


def _inside(old: Shape, new: Shape) -> Shape:
    """The largest subset of the old shape that the new one has room for, or a head more than that."""
    group = old.heads // old.kv_heads
    wanted = new.kv_heads if new.heads == new.kv_heads * group else ceil(new.heads / group)
    kv_heads = min(old.kv_heads, wanted)
    lengths = {axis: min(getattr(old, axis), getattr(new, axis)) for axis in ("layers", "hidden", "ffn")}
    return replace(old, heads=kv_heads * group, kv_heads=kv_heads, **lengths)


def _turned(model: Checkpoint) -> int | None:
    """How many of a head's channels rotary positions turn, if these are some of them."""
    width = model.structure.shape.head_dim
    rotary = read_rotary(model.config, width)
    return None if rotary is None or rotary.width in (0, width) else rotary.width


def _outer(inner: Checkpoint, structure: Structure, weights: dict[str, torch.Tensor]) -> None:
    """Embedding, learned positions, last norm and head, each from the tensor of the same role."""
    old, new = inner.structure, structure
    of_role = {(tensor.role, len(tensor.axes)): tensor.name for tensor in tensors(old) if tensor.layer is None}
    theirs = scalars_of(old, inner.config)
    same = old.architecture is new.architecture
    # In a bridge of another architecture all other scalars are neutral.
    times = 1.0 if same else theirs.embedding / (old.shape.hidden**0.5 if new.architecture.scales_embedding else 1.0)
    sharper = 1.0 if same else theirs.logits
    tied = ("tie_word_embeddings", True) in new.flags
    for tensor in tensors(new):
        embedding = of_role[(Role.EMBEDDING, 2)] if tensor.role is Role.HEAD else None
        source = of_role.get((tensor.role, len(tensor.axes)), embedding)
        if tensor.layer is not None or source is None:
            continue
        found = inner.tensors[source].float()
        if tensor.role is Role.EMBEDDING:
            found = found * times
            learned = of_role.get((Role.POSITION, 2))
            if learned is not None and Role.POSITION not in {other.role for other in tensors(new)}:
                # The same for every token, so that a head that is the embedding says the same.
                found = found + inner.tensors[learned].float().mean(dim=0)
        if tensor.role is Role.NORM:
            # A tied head is as many times larger as the embedding is.
            whole = (found + old.architecture.norm_offset) / (times * sharper if tied else sharper)
            found = whole - new.architecture.norm_offset
        _paste(weights, tensor.name, found)


def _paste(weights: dict[str, torch.Tensor], name: str, tensor: torch.Tensor) -> None:
    """Puts a tensor over the beginning of each axis of one that is at least, or nearly, as long."""
    if name not in weights:
        return
    target = weights[name]
    room = tuple(slice(0, min(one, other)) for one, other in zip(target.shape, tensor.shape, strict=True))
    target[room] = tensor[room].to(target.dtype)


def _drawn(tensor: Tensor, structure: Structure, generator: torch.Generator) -> torch.Tensor:
    if tensor.role in (Role.NORM, Role.BRANCH_NORM, Role.HEAD_NORM):
        return torch.full(tensor.lengths, 1.0 - structure.architecture.norm_offset)
    if len(tensor.axes) == 1:
        return torch.zeros(tensor.lengths)
    return torch.randn(tensor.lengths, generator=generator) * INITIAL


# -- the embedding ----------------------------------------------------------------------------------------------------


def _sum(rows: torch.Tensor, shares: Sequence[tuple[int, float]]) -> torch.Tensor:
    weights = torch.tensor([share for _, share in shares])
    return (rows[[index for index, _ in shares]] * weights[:, None]).sum(dim=0)


def _overlap(token: bytes, old: Spelled) -> tuple[tuple[int, float], ...]:
    """The longest tokens that spell it one after the other; bytes that none begins with are left out."""
    found, at = [], 0
    while at < len(token):
        index = old.prefix(token[at:])
        size = 0 if index is None else len(old.spelled[index] or b"")
        if index is not None:
            found.append((index, size))
        at += max(1, size)
    spelled = sum(size for _, size in found)
    return tuple((index, size / spelled) for index, size in found)


def _pursued(token: bytes, tokens: Mapping[bytes, int]) -> tuple[tuple[int, float], ...]:
    """Orthogonal matching pursuit of a token's byte n-grams by those of the tokens inside it."""
    inside = sorted({piece for piece in _pieces(token) if piece in tokens})
    if not inside:
        return ()
    wanted = _grams(token, True, True)
    columns = [_grams(piece, token.startswith(piece), token.endswith(piece)) for piece in inside]
    place = {name: row for row, name in enumerate(sorted(set(wanted).union(*columns)))}
    dictionary = np.stack([_vector(column, place) for column in columns], axis=1)
    chosen, shares = _pursue(dictionary, _vector(wanted, place))
    total = sum(shares)
    if total < _LEAST:
        return ()
    return tuple((tokens[inside[index]], share / total) for index, share in zip(chosen, shares, strict=True))


def _pursue(dictionary: np.ndarray, target: np.ndarray) -> tuple[list[int], list[float]]:
    """Columns of a dictionary, and their shares, whose sum comes nearest to a vector: one column more at a time."""
    lengths = np.linalg.norm(dictionary, axis=0)
    chosen: list[int] = []
    shares = np.zeros(0)
    rest = target
    for _ in range(_PARTS):
        gains = np.abs(dictionary.T @ rest) / lengths
        gains[chosen] = 0.0
        best = int(gains.argmax())
        if gains[best] <= _ENOUGH:
            break
        chosen.append(best)
        shares = np.linalg.lstsq(dictionary[:, chosen], target, rcond=None)[0]
        rest = target - dictionary[:, chosen] @ shares
    return chosen, [float(share) for share in shares]


def _pieces(token: bytes) -> Iterator[bytes]:
    for start in range(len(token)):
        for stop in range(start + 1, len(token) + 1):
            if stop - start < len(token):
                yield token[start:stop]


def _grams(token: bytes, begins: bool, ends: bool) -> Counter[bytes]:
    """Its byte n-grams, with marks where it begins and ends a token; longer ones weigh more."""
    marked = (_BEGIN if begins else b"") + token + (_END if ends else b"")
    sizes: Iterable[int] = range(1, _GRAMS + 1)
    return Counter(marked[at : at + size] for size in sizes for at in range(len(marked) - size + 1))


def _vector(grams: Counter[bytes], place: Mapping[bytes, int]) -> np.ndarray:
    found = np.zeros(len(place))
    for gram, count in grams.items():
        found[place[gram]] = count
    return found
