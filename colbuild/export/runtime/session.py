"""A package's graph in onnxruntime: token ids and cache as inputs, logits and cache as outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy
import numpy.typing
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from colbuild.errors import BuildError, short_text
from colbuild.export.graph.graph_signature import check_signature
from colbuild.export.graph.onnx_scan import check_data_files
from colbuild.export.manifest import AGAIN, Graph

Ids = numpy.typing.NDArray[numpy.int64]
Logits = numpy.typing.NDArray[numpy.float32]

UNREADABLE: Final[tuple[type[Exception], ...]] = (
    *(each for each in vars(ort_errors).values() if isinstance(each, type) and issubclass(each, Exception)),
    RuntimeError,
    ValueError,
)
"""What onnxruntime raises for a graph that it cannot load or run."""
ERRORS_ONLY: Final = 3
"""onnxruntime's log level."""
PROMPT_PIECE: Final = 256
"""Prompt tokens fed at once; their logits are what needs the most memory."""


@dataclass(frozen=True)
class Decoder:
    """An open graph with the names of its tensors.

    Attributes:
        session: onnxruntime's session.
        graph: How to call it.
        past_names: Inputs of the cache.
        result_names: Logits first, then outputs of the cache in the order of `past_names`.
        vocab: Logits at each position: token ids are below it.
        beat: Called after each call of the graph.
    """

    session: onnxruntime.InferenceSession
    graph: Graph
    past_names: tuple[str, ...]
    result_names: tuple[str, ...]
    vocab: int
    beat: Callable[[], None]


@dataclass(frozen=True, eq=False)
class Cache:
    """A decoder's key/value cache.

    Attributes:
        values: Keys and values as onnxruntime holds them, in the order of `Decoder.past_names`.
        mask: 1 for tokens and 0 for padding: [batch, length].
    """

    values: Sequence[Any]
    mask: Ids


def open_decoder(
    path: Path,
    graph: Graph,
    threads: int | None = None,
    *,
    pooled: bool = True,
    beat: Callable[[], None] = lambda: None,
) -> Decoder:
    """Loads a graph onto the CPU.

    Args:
        path: The .onnx file.
        graph: How to call it, from the manifest.
        threads: Threads to compute with; all cores when None.
        pooled: Whether onnxruntime keeps memory for the next call, as it does by itself; it takes it in powers of two.
        beat: Called when it is loaded, and after each call of it.

    Raises:
        BuildError: onnxruntime cannot read the file or does not know one of its operators; the file reads other files than
            those beside it, or has other inputs and outputs than the manifest says.
    """
    check_data_files(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = pooled
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except UNREADABLE as error:
        raise BuildError(
            f"onnxruntime {onnxruntime.__version__} cannot load {path}: {short_text(error)}",
            hint=f"{AGAIN}; an older onnxruntime may lack an operator",
        ) from None
    vocab = check_signature(session, graph, path)
    beat()
    return Decoder(session, graph, graph.names(graph.past), (*graph.outputs, *graph.names(graph.present)), vocab, beat)


def empty_cache(decoder: Decoder, batch: int = 1) -> Cache:
    """A cache that holds no tokens yet; of a graph of fixed lengths one that is full of padding."""
    graph = decoder.graph
    length = graph.cache_length or 0
    nothing = numpy.zeros((batch, graph.kv_heads, length, graph.head_dim), graph.cache)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(nothing) for _ in decoder.past_names]
    return Cache(values, numpy.zeros((batch, length), numpy.int64))


def advance(decoder: Decoder, ids: Ids, mask: Ids, cache: Cache) -> tuple[Logits, Cache]:
    """Feeds tokens after those in the cache.

    Args:
        decoder: The open graph.
        ids: [batch, new]; for a graph of fixed lengths one row of at most `sequence`.
        mask: 1 for tokens and 0 for padding, on the left of all only: [batch, new].
        cache: The cache so far.

    Returns:
        Logits [batch, new, vocab], and the cache with the new tokens.
    """
    if decoder.graph.sequence is not None:
        return _advance_fixed(decoder, ids, cache, decoder.graph.sequence)
    whole = numpy.concatenate([cache.mask, mask], axis=1)
    positions = numpy.maximum(whole.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
    logits, *present = _run(decoder, ids, whole, positions, cache)
    return logits.numpy().astype(numpy.float32, copy=False), Cache(present, whole)


def _advance_fixed(decoder: Decoder, ids: Ids, cache: Cache, sequence: int) -> tuple[Logits, Cache]:
    """The new tokens stand on the right of a call, padding before them; what is kept of a call are they alone."""
    new, seen, kept = ids.shape[1], int(cache.mask.sum()), cache.mask.shape[1]
    padding = sequence - new
    row = numpy.pad(ids, ((0, 0), (padding, 0)))
    ones = numpy.ones((1, new), numpy.int64)
    mask = numpy.concatenate([cache.mask, numpy.zeros((1, padding), numpy.int64), ones], axis=1)
    positions = numpy.pad(numpy.arange(seen, seen + new)[None], ((0, 0), (padding, 0)))
    logits, *present = _run(decoder, row, mask, positions, cache)
    values = [_newest(value.numpy(), kept, padding) for value in present]
    after = numpy.concatenate([cache.mask, ones], axis=1)[:, new:]
    return logits.numpy()[:, padding:].astype(numpy.float32, copy=False), Cache(values, after)


def _newest(value: numpy.typing.NDArray[Any], kept: int, padding: int) -> Any:
    """The last `kept` entries of keys or values [1, kv_heads, kept + padding + new, head_dim], padding left out."""
    whole = numpy.concatenate([value[:, :, :kept], value[:, :, kept + padding :]], axis=2)
    return onnxruntime.OrtValue.ortvalue_from_numpy(numpy.ascontiguousarray(whole[:, :, -kept:]))


def _run(decoder: Decoder, ids: Ids, mask: Ids, positions: Ids, cache: Cache) -> list[Any]:
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    feeds: dict[str, Any] = {name: value(numpy.ascontiguousarray(given[name])) for name in decoder.graph.inputs}
    feeds.update(zip(decoder.past_names, cache.values, strict=True))
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < decoder.vocab:
        raise BuildError(
            f"the text has the token id {int(ids.max()):,}, and the package's graph has {decoder.vocab:,} tokens",
            hint=f"{AGAIN}: its tokenizer and its graph do not belong together",
        )
    try:
        results = list(decoder.session.run_with_ort_values(decoder.result_names, feeds))
        shape = results[0].shape()
    except UNREADABLE as error:
        raise BuildError(
            f"onnxruntime {onnxruntime.__version__} cannot run the package's graph: {short_text(error)}",
            hint=AGAIN,
        ) from None
    if list(shape) != [*ids.shape, decoder.vocab]:
        raise BuildError(
            f"the package's graph gives logits of shape {list(shape)}, not {[*ids.shape, decoder.vocab]}",
            hint=AGAIN,
        )
    decoder.beat()
    return results


def feed(decoder: Decoder, ids: Ids, mask: Ids, pieces: Sequence[int]) -> Iterator[tuple[Logits, Cache]]:
    """Feeds a prompt from its start in pieces of these lengths; yields each piece's logits and the cache after it.

    A graph of fixed lengths is fed in smaller ones where these are longer than it takes.
    """
    cache, start = empty_cache(decoder, len(ids)), 0
    most = decoder.graph.sequence or max(pieces)
    for length in [part for piece in pieces for part in in_pieces(piece, most)]:
        end = start + length
        logits, cache = advance(decoder, ids[:, start:end], mask[:, start:end], cache)
        yield logits, cache
        start = end


def feed_text(decoder: Decoder, ids: Sequence[int]) -> Iterator[Logits]:
    """Logits [piece, vocab] for one text, a piece at a time."""
    row = numpy.array([ids], numpy.int64)
    for logits, _ in feed(decoder, row, numpy.ones_like(row), in_pieces(len(ids), PROMPT_PIECE)):
        yield logits[0]


def feed_whole(decoder: Decoder, ids: Sequence[int]) -> Logits:
    """Logits [length, vocab] for one text, fed in pieces."""
    whole: Logits = numpy.concatenate(list(feed_text(decoder, ids)))
    return whole


def in_pieces(length: int, piece: int) -> list[int]:
    """`length` cut into pieces of at most `piece`."""
    return [min(piece, length - start) for start in range(0, length, piece)]


def generate_tokens(
    decoder: Decoder, prompt: Sequence[int], choose: Callable[[Logits], int], most: int
) -> Iterator[int]:
    """Continues a prompt by at most `most` tokens, each chosen from the logits [vocab] before it."""
    ids = numpy.array([prompt], numpy.int64)
    for read in feed(decoder, ids, numpy.ones_like(ids), in_pieces(len(prompt), PROMPT_PIECE)):
        logits, cache = read
    for place in range(most):
        token = choose(logits[0, -1])
        yield token
        if place + 1 < most:
            logits, cache = advance(
                decoder, numpy.array([[token]], numpy.int64), numpy.ones((1, 1), numpy.int64), cache
            )
