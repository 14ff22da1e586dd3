"""Chooses the form of each matrix of a package, bits and rounding, by measurements on calibration text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import torch

from colbuild.errors import BuildError
from colbuild.export.graph.decoder import EmptyDecoder
from colbuild.export.graph.graph_nodes import linears, lookups
from colbuild.export.rounding.block_rounding import Blocks, inputs_of, round_blocks
from colbuild.export.rounding.matrix_statistics import HEAD, Seen, harm, seen_by
from colbuild.export.rounding.rounded_tables import embeddings, round_tables
from colbuild.hashing import walk_files
from colbuild.plan.shapes.package_size import spelt_out
from colbuild.process_memory import give_back_pages
from colbuild.progress import Progress, Report
from colbuild.spec.model.device import COARSE, Device
from colbuild.spec.model.precision import stored_bytes
from colbuild.units import format_bytes

KINDS: Final[Mapping[str, str]] = {
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "output": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}
_GIVEN_BACK: Final = 8
"""Matrices after which what was needed for them is given back: each thread would keep some."""
Made = TypeVar("Made")
_LAYER: Final = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Form:
    """A form in which a matrix can be stored.

    Attributes:
        bits: 4 or 8.
        block: Weights that share a scale.
        size: Bytes.
        harm: Nats a token that it costs, see `colbuild.export.rounding.matrix_statistics`.
    """

    bits: int
    block: int
    size: int
    harm: float


@dataclass
class Fitted:
    """The rounded matrices of a package.

    Attributes:
        fixed: Names of what keeps 8 bits and is rounded as it is: learned positions, and embedding and head if they do.
        rounded: All but these.
        tables: Names of the embedding and the head, if they are among the rounded.
    """

    fixed: frozenset[str]
    rounded: dict[str, Blocks] = field(default_factory=dict)
    tables: frozenset[str] = frozenset()

    @property
    def eight(self) -> frozenset[str]:
        """Names of those that keep 8 bits."""
        return self.fixed | {name for name, blocks in self.rounded.items() if blocks.bits == 8}


def fit(
    decoder: EmptyDecoder,
    profile: Device,
    statistics: dict[str, Seen],
    room: int | None,
    report: Report,
) -> Fitted:
    """Rounds the matrices of a graph to 4 bits where a profile asks for that, and decides which keep 8.

    Args:
        decoder: The empty graph, and what fills it.
        profile: One whose rounding is fitted.
        statistics: What the model's matrices saw; emptied, as that is much.
        room: Bytes that all matrices and tables may take together, where that decides how each is stored; else None.
        report: Told after each matrix.

    Raises:
        BuildError: There is no room even with 4 bits in every layer.
    """
    weights, graph = decoder.weights, decoder.model.graph
    tables = {use.weight for use in lookups(graph)}
    names = [use.weight for use in linears(graph)]
    known = {name: found for name in names if (found := seen_by(name, statistics)) is not None}
    head = statistics[HEAD]
    statistics.clear()
    # The head is the embedding, or as large, and no text says how often a token that it lacks would have been right.
    heads = set(names) - known.keys()
    fixed = frozenset(tables | heads)
    matrices = [name for name in names if name not in fixed]
    small: dict[str, Blocks] = {}
    if profile.embedding_bits == 4:
        small = round_tables(graph, weights, embeddings(graph) | heads, profile.table_block, head)
        fixed -= small.keys()
    if room is None:
        rounded = _by_hand(weights, matrices, known, profile, report)
    else:
        left = room - sum(stored_bytes(8, tuple(weights[name].shape), profile.table_block) for name in fixed)
        left -= sum(stored_bytes(4, tuple(weights[name].shape), profile.table_block) for name in small)
        rounded = _by_measure(weights, matrices, known, profile, left, report)
    return Fitted(fixed, small | rounded, frozenset(small))


Weights = Mapping[str, torch.Tensor]


def _by_hand(
    weights: Weights,
    matrices: Sequence[str],
    known: dict[str, Seen],
    profile: Device,
    report: Report,
) -> dict[str, Blocks]:
    """4 bits for all but what the profile keeps in 8."""
    layers = 1 + max(_layer(name) for name in matrices)

    def rounded(name: str) -> Blocks:
        bits = 8 if _is_kept(name, profile, layers) else 4
        inputs = inputs_of(known.pop(name).moments) if bits == 4 else None
        return round_blocks(weights[name], bits, profile.block, inputs)

    return _of_each(matrices, rounded, report)


def _by_measure(
    weights: Weights,
    matrices: Sequence[str],
    known: dict[str, Seen],
    profile: Device,
    room: int,
    report: Report,
) -> dict[str, Blocks]:
    """For each matrix 4 bits in coarse or fine blocks, or 8: what together does least harm in the room that there is."""

    def forms(name: str) -> dict[Form, Blocks]:
        return _forms(weights[name].float(), known.pop(name), profile.block)

    tried = _of_each(matrices, forms, report)
    chosen = allocate(room, {name: tuple(forms) for name, forms in tried.items()}, profile)
    return {name: tried.pop(name)[form] for name, form in chosen.items()}


def _of_each(matrices: Sequence[str], work: Callable[[str], Made], report: Report) -> dict[str, Made]:
    """What some work makes of each matrix, a core to each: columns come one after the other, and are too little for two."""
    threads, found = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for done, (name, made) in enumerate(zip(matrices, pool.map(work, matrices), strict=True)):
                report(Progress(done, len(matrices), "matrices", "rounding"))
                found[name] = made
                if done % _GIVEN_BACK == 0:
                    give_back_pages()
    finally:
        torch.set_num_threads(threads)
    return found


def _forms(weight: torch.Tensor, seen: Seen, block: int) -> dict[Form, Blocks]:
    forms, moments = {}, seen.moments
    inputs = inputs_of(moments)
    for bits, each in dict.fromkeys(((4, COARSE), (4, block), (8, COARSE))):
        blocks = round_blocks(weight, bits, each, inputs)
        size = stored_bytes(bits, tuple(weight.shape), each)
        form = Form(bits, each, size, harm(blocks.values() - weight, moments, seen.pull))
        forms[form] = blocks
    return forms


def allocate(room: int, forms: Mapping[str, Sequence[Form]], profile: Device) -> dict[str, Form]:
    """The form of each matrix: from the smallest of each on, always what gains most for each byte more and still fits.

    Raises:
        BuildError: Not even the smallest forms fit.
    """
    chosen = {name: min(every, key=lambda form: form.size) for name, every in forms.items()}
    left = room - sum(form.size for form in chosen.values())
    if left < 0:
        nearest = _rounded_up((profile.limits.max_package or 0) - left)
        smaller = "; or embedding_bits: 4" if profile.has_large_embedding else ""
        raise BuildError(
            f"the package would have {format_bytes(-left)} more than its limit max_package even with 4 bits in every layer",
            hint=f"the nearest size that would fit is max_package: {nearest}{smaller}",
        )
    while True:
        better = [
            ((chosen[name].harm - form.harm) / (form.size - chosen[name].size), name, form)
            for name, every in forms.items()
            for form in every
            if 0 < form.size - chosen[name].size <= left and form.harm < chosen[name].harm
        ]
        if not better:
            return chosen
        _, name, form = max(better, key=lambda one: (one[0], one[1], one[2].size))
        left -= form.size - chosen[name].size
        chosen[name] = form


_BESIDE: Final = 24_576
"""Bytes of the manifest and of the graph without its weights; each layer adds some, see `colbuild.plan.shapes.package_size`."""
_BESIDE_LAYER: Final = 10_240


def room_for_matrices(profile: Device, decoder: EmptyDecoder, companions: Path) -> int | None:
    """Bytes that matrices and tables may take, where that decides which keep 8 bits; else None.

    Everything else is counted, the graph bounded.

    Args:
        profile: What says how large the package may be.
        decoder: The empty graph.
        companions: A folder with the files beside the graph.
    """
    if not profile.stored.measured:
        return None
    most = profile.limits.max_package or 0
    known = sum(value.const_value.nbytes for value in decoder.model.graph.initializers.values() if value.const_value)
    vectors = sum(4 * tensor.numel() for tensor in decoder.weights.values() if tensor.ndim == 1)
    # Keys and values of each layer, and the logits.
    layers = (len(decoder.model.graph.outputs) - 1) // 2
    beside = sum(status.st_size for status in walk_files(companions).values())
    return most - known - vectors - _BESIDE - (_BESIDE_LAYER + spelt_out(profile)) * layers - beside


def _is_kept(name: str, profile: Device, layers: int) -> bool:
    layer = _layer(name)
    kinds = {KINDS[kind] for kind in profile.keep_8bit if kind in KINDS}
    if ("first" in profile.keep_8bit and layer == 0) or ("last" in profile.keep_8bit and layer == layers - 1):
        return True
    return name.removesuffix(".weight").rpartition(".")[2] in kinds


def _layer(name: str) -> int:
    found = _LAYER.search(name)
    return int(found[1]) if found else 0


def _rounded_up(size: int) -> str:
    return f"{-(-size // 10_000) / 100:.2f}MB".replace(".00MB", "MB")
