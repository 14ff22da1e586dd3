"""A package's graph in onnxruntime: token ids and cache in, logits and cache out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy
import numpy.typing
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from colbuild.errors import BuildError
from colbuild.export.manifest import Graph

Ids = numpy.typing.NDArray[numpy.int64]
Logits = numpy.typing.NDArray[numpy.float32]
Past = Sequence[Any]
"""The cache as onnxruntime holds it, in the order of `Decoder.past_names`."""

UNREADABLE: Final = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
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
    """

    session: onnxruntime.InferenceSession
    graph: Graph
    past_names: tuple[str, ...]
    result_names: tuple[str, ...]


def open_decoder(path: Path, graph: Graph, threads: int | None = None) -> Decoder:
    """Loads a graph onto the CPU.

    Args:
        path: The .onnx file.
        graph: How to call it, from the manifest.
        threads: Threads to compute with; all cores when None.

    Raises:
        BuildError: onnxruntime cannot read the file or does not know one of its operators.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except UNREADABLE as error:
        raise BuildError(
            f"onnxruntime {onnxruntime.__version__} cannot load {path}: {error}",
            hint="copy or build the package again; an older onnxruntime may lack an operator",
        ) from None
    return Decoder(session, graph, graph.names(graph.past), (*graph.outputs, *graph.names(graph.present)))


def empty_past(decoder: Decoder, batch: int = 1) -> Past:
    """A cache that holds no tokens yet."""
    graph = decoder.graph
    nothing = numpy.zeros((batch, graph.kv_heads, 0, graph.head_dim), graph.cache)
    return [onnxruntime.OrtValue.ortvalue_from_numpy(nothing) for _ in decoder.past_names]


def advance(decoder: Decoder, ids: Ids, mask: Ids, past: Past) -> tuple[Logits, Past]:
    """Feeds tokens after those in the cache.

    Args:
        decoder: The open graph.
        ids: [batch, new].
        mask: 1 for tokens and 0 for padding, on the left only: [batch, past + new].
        past: The cache so far.

    Returns:
        Logits [batch, new, vocab], and the cache with the new tokens.
    """
    positions = numpy.maximum(mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    feeds = {
        name: value(numpy.ascontiguousarray(array))
        for name, array in zip(decoder.graph.inputs, (ids, mask, positions), strict=True)
    }
    feeds.update(zip(decoder.past_names, past, strict=True))
    logits, *present = decoder.session.run_with_ort_values(decoder.result_names, feeds)
    return logits.numpy().astype(numpy.float32, copy=False), present


def feed(decoder: Decoder, ids: Ids, mask: Ids, pieces: Sequence[int]) -> Iterator[tuple[Logits, Past]]:
    """Feeds a prompt from its start in pieces of these lengths; yields each piece's logits and the cache after it."""
    past, start = empty_past(decoder, len(ids)), 0
    for length in pieces:
        end = start + length
        logits, past = advance(decoder, ids[:, start:end], mask[:, :end], past)
        yield logits, past
        start = end


def feed_whole(decoder: Decoder, ids: Sequence[int]) -> Logits:
    """Logits [length, vocab] for one text, fed in pieces."""
    row = numpy.array([ids], numpy.int64)
    parts = [logits[0] for logits, _ in feed(decoder, row, numpy.ones_like(row), in_pieces(len(ids), PROMPT_PIECE))]
    whole: Logits = numpy.concatenate(parts)
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
        logits, past = read
    for place in range(most):
        token = choose(logits[0, -1])
        yield token
        if place + 1 < most:
            mask = numpy.ones((1, len(prompt) + place + 1), numpy.int64)
            logits, past = advance(decoder, numpy.array([[token]], numpy.int64), mask, past)
