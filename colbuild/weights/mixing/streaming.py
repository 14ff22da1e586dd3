"""Subsets and mixtures of models on disk, a few rows at a time, so memory does not grow with the model.

What is written is, bit for bit, what `subset` and `mix` make in memory. Files are read and written by position and never
mapped, since pages of a mapped file count as the process's own. Two threads work on a tensor each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Final

import numpy as np

from colbuild.arch import Shape, tensors
from colbuild.arch.files.safetensors_headers import check_lengths
from colbuild.errors import BuildError
from colbuild.progress import Progress, Report
from colbuild.weights.files.arrays import Array, rescale
from colbuild.weights.files.checkpoint import Checkpoint, copy_companions, load_facts, save_facts
from colbuild.weights.files.finite import finite, no_numbers
from colbuild.weights.files.tensor_files import Stored, TensorReader, stored_tensors
from colbuild.weights.files.tensor_writer import SHARD, Planned, TensorWriter
from colbuild.weights.mixing.blend import Blend, Index, as_index, prefix_of, runs
from colbuild.weights.mixing.interpolation import check_types, partners, ranked_as, towards
from colbuild.weights.mixing.mixture import Mix
from colbuild.weights.mixing.tensor_mixing import blend
from colbuild.weights.prefix.subset import Part, parts, subset_facts

CHUNK: Final = 2**18
"""Bytes of the result that are made at once: more leaves the processor's cache, less makes more calls."""

THREADS: Final = 2


@dataclass(frozen=True)
class Model:
    """A model folder without its weights.

    Attributes:
        folder: Where it is.
        facts: Its configuration, structure and lineage.
        stored: Where its tensors lie, by their names in the model.
    """

    folder: Path
    facts: Checkpoint
    stored: Mapping[str, Stored]


def open_model(folder: Path) -> Model:
    """Reads what a model folder says of itself.

    Raises:
        BuildError: A file is damaged, cut off or missing, or the tensors are not the ones that the configuration implies.
    """
    facts = load_facts(folder)
    name = facts.structure.architecture.model_name
    stored = {name(key): tensor for key, tensor in stored_tensors(folder).items()}
    check_lengths(facts.structure, {key: tensor.lengths for key, tensor in stored.items()})
    return Model(folder, facts, stored)


def stream_subset(larger: Path, shape: Shape, output: Path, report: Report, shard: int = SHARD) -> None:
    """Writes the model of `shape` inside an ordered one, as `subset` makes it.

    Args:
        larger: Its model folder.
        shape: What is wanted.
        output: An empty folder for the result.
        report: Told of every tensor.
        shard: Bytes of one weight file at most.

    Raises:
        BuildError: The shape does not lie inside the model's, a file is damaged, or a weight is no number.
    """
    model = open_model(larger)
    facts = subset_facts(model.facts, shape)
    _write(model, facts, _chosen(model, facts), lambda part: None, output, report, shard)


def stream_mix(
    larger: Path, smaller: Path, shape: Shape, how: Mix, output: Path, report: Report, shard: int = SHARD
) -> None:
    """Writes one mixture of two anchors, as `mix` makes it.

    Args:
        larger: The larger anchor's model folder.
        smaller: The smaller one's, or that of a nested student's prefix in the DesNet's shape.
        shape: The DesNet's.
        how: The mixture.
        output: An empty folder for the result.
        report: Told of every tensor.
        shard: Bytes of one weight file at most.

    Raises:
        BuildError: The anchors do not fit, the shape is not between them, a file is damaged, or a weight is no number.
    """
    model, other = open_model(larger), open_model(smaller)
    original, model = model.facts, replace(model, facts=towards(model.facts, other.facts))
    facts = ranked_as(subset_facts(model.facts, shape), original)
    positions, chosen = partners(facts, other.facts), _chosen(model, facts)
    ours = {part.name: model.stored[part.source].dtype for part in chosen}
    theirs = {name: stored.dtype for name, stored in other.stored.items()}
    check_types(facts.structure, other.facts.structure, positions, how, ours, theirs)
    of_name = {tensor.name: tensor for tensor in tensors(facts.structure)}

    def mixed(part: Part) -> Mixed | None:
        name, mixing = blend(facts.structure, other.facts.structure, positions, of_name[part.name], how)
        partner = other.stored[name] if mixing.needs_partner else None
        return Mixed(mixing, partner) if mixing.changes else None

    _write(model, facts, chosen, mixed, output, report, shard)


def _chosen(model: Model, facts: Checkpoint) -> tuple[Part, ...]:
    """Which part of which tensor of a larger anchor each tensor of a subset is."""
    return parts(model.facts.structure, model.facts.ordered, facts.structure.shape)


@dataclass(frozen=True, eq=False)
class Mixed:
    """The mixing of a tensor, and the place of its partner; None if the partner has no effect."""

    how: Blend
    partner: Stored | None


# -- all tensors ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Task:
    """One tensor that is to be written.

    Attributes:
        part: Which part of the larger anchor's tensor it is.
        planned: What it is in the file.
        source: Where the larger anchor's tensor lies.
    """

    part: Part
    planned: Planned
    source: Stored


def _write(
    model: Model,
    facts: Checkpoint,
    chosen: Sequence[Part],
    mixed: Callable[[Part], Mixed | None],
    output: Path,
    report: Report,
    shard: int,
) -> None:
    named = facts.structure.architecture.stored_name
    sources = [model.stored[part.source] for part in chosen]
    planned = [
        Planned(named(part.name), source.dtype, part.lengths) for part, source in zip(chosen, sources, strict=True)
    ]
    # The largest first, so that the threads end together.
    tasks = sorted(map(Task, chosen, planned, sources), key=lambda task: -task.planned.bytes)
    total, done = sum(tensor.bytes for tensor in planned), 0
    with TensorWriter(output, planned, shard) as writer, TensorReader() as reader:

        def make(task: Task) -> int:
            _make(task, mixed(task.part), reader, writer)
            return task.planned.bytes

        for size in _side_by_side(make, tasks):
            done += size
            report(Progress(done, total, "bytes", "writing"))
    save_facts(facts, output)
    copy_companions(model.folder, output)


def _side_by_side(make: Callable[[Task], int], tasks: Sequence[Task]) -> Iterator[int]:
    """What `make` returns for each, from threads: numpy lets others run while it computes."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(make, tasks)


# -- one tensor -------------------------------------------------------------------------------------------------------


def _make(task: Task, mixed: Mixed | None, reader: TensorReader, writer: TensorWriter) -> None:
    """Writes one tensor, some rows at a time."""
    part, source = task.part, task.source
    rows = prefix_of(part.whole[0], part.kept[0])
    columns = as_index(prefix_of(part.whole[1], part.kept[1])) if len(part.whole) == 2 else slice(0, 1)
    width = prod(part.lengths[1:])
    for start, stop, first in _pieces(rows, max(1, CHUNK // (source.width * source.dtype.itemsize))):
        mine = _columns(reader.rows(source, first, first + stop - start, "base"), columns, width)
        if part.scale != 1.0:
            rescale(mine, part.scale, part.offset)
        if mixed is not None:
            mixed.how.apply(mine, _partner_rows(mixed, start, stop, reader), start)
        if not finite(mine):
            raise _to_blame(task, mixed, reader)
        writer.write(task.planned.name, start * width * source.dtype.itemsize, as_bytes(mine))


def _partner_rows(mixed: Mixed, start: int, stop: int, reader: TensorReader) -> Array | None:
    if mixed.partner is None:
        return None
    meet = mixed.how.partner_rows(start, stop)
    return reader.rows(mixed.partner, meet.start, meet.stop, "partner")


def _to_blame(task: Task, mixed: Mixed | None, reader: TensorReader) -> BuildError:
    """Which file a result that is no number comes from."""
    for stored in (task.source, None if mixed is None else mixed.partner):
        if stored is None:
            continue
        most = max(1, CHUNK // (stored.width * stored.dtype.itemsize))
        for first in range(0, stored.lengths[0], most):
            if not finite(reader.rows(stored, first, min(first + most, stored.lengths[0]), "base")):
                return no_numbers(stored.name, stored.path)
    return BuildError(
        f"{task.planned.name} overflows in {task.source.dtype}: scaling or mixing makes a weight infinite"
    )


def _pieces(rows: Array, most: int) -> Iterator[tuple[int, int, int]]:
    """(first row, row after the last, the first one's place in the source) of pieces whose rows lie together there."""
    begun = 0
    for first, count in runs(rows):
        for taken in range(0, count, most):
            some = min(most, count - taken)
            yield begun + taken, begun + taken + some, first + taken
        begun += count


def _columns(read: Array, columns: Index, width: int) -> Array:
    """Some columns of what was read, in memory that lies together."""
    return read if read.shape[1] == width else np.ascontiguousarray(read[:, columns])


def as_bytes(numbers: Array) -> memoryview:
    """The memory of an array that lies together."""
    return numbers.reshape(-1).view(np.uint8).data
