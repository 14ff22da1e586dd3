"""Compares a graph's inputs and outputs with its manifest, before memory is allocated for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from colbuild.errors import BuildError
from colbuild.export.manifest import AGAIN, Graph

_IDS: Final = "tensor(int64)"
_FLOATS: Final = {"float32": "tensor(float)", "float16": "tensor(float16)"}


def check_signature(session: Any, graph: Graph, path: Path) -> int:
    """Compares an open graph with the manifest's words; returns how many logits each position has.

    Args:
        session: onnxruntime's session.
        graph: What the manifest says.
        path: The graph's file.

    Raises:
        BuildError: An input or output is missing or there is another; or its type or a length differs.
    """
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    # Before names are made: a manifest may say any number of layers.
    for what, found, named, cache in (
        ("inputs", inputs, graph.inputs, graph.past),
        ("outputs", outputs, graph.outputs, graph.present),
    ):
        count = len(named) + graph.layers * len(cache)
        if count != len(found):
            raise _differs(path, f"has {len(found):,} {what}", f"{count:,}")
    if not graph.outputs:
        raise BuildError(f"the manifest beside {path} names no logits", hint=AGAIN)
    batch = None if graph.sequence is None else 1
    for name in graph.inputs:
        length = graph.sequence
        if name == "attention_mask" and length is not None:
            length += graph.cache_length or 0
        _check(path, inputs, name, _IDS, (batch, length))
    lengths = (batch, graph.kv_heads, graph.cache_length, graph.head_dim)
    for past in graph.names(graph.past):
        _check(path, inputs, past, _FLOATS[graph.cache], lengths)
    for present in graph.names(graph.present):
        _check(path, outputs, present, _FLOATS[graph.cache], (batch, graph.kv_heads, None, graph.head_dim))
    logits = outputs.get(graph.outputs[0])
    vocab = logits.shape[-1] if logits is not None and len(logits.shape) == 3 else None
    if logits is None or logits.type not in _FLOATS.values() or not isinstance(vocab, int) or vocab < 1:
        raise _differs(path, f"gives no logits '{graph.outputs[0]}'", "it does")
    return vocab


def _check(path: Path, found: dict[str, Any], name: str, kind: str, lengths: Sequence[int | None]) -> None:
    value = found.get(name)
    if value is None:
        raise _differs(path, f"has no input or output '{name}'", "it has")
    if value.type != kind:
        raise _differs(path, f"has '{name}' as {value.type}", kind)
    fits = len(value.shape) == len(lengths) and all(
        wanted is None or wanted == there for wanted, there in zip(lengths, value.shape, strict=True)
    )
    if not fits:
        told = ["any" if length is None else length for length in lengths]
        raise _differs(path, f"has '{name}' of shape {value.shape}", f"{told}")


def _differs(path: Path, found: str, said: str) -> BuildError:
    return BuildError(f"{path} {found}; the manifest says {said}", hint=AGAIN)
