"""Builds the decoder's ONNX graph with a key/value cache from a configuration; weights are filled in afterwards.

The graph is built by the mobius library (operators of ONNX opset 24, names as in optimum). Tracing the PyTorch model
with `torch.onnx.export` gives the same logits and speed, but takes 40 to 70 s of CPU time and a copy of the weights for
SmolLM2-135M, where this takes 2 s and none: see `docs/packages.md`.

Everything that we know of the library's ways stands in this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from types import MethodType
from typing import Any, Final

import onnx_ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from colbuild import __version__
from colbuild.arch import ARCHITECTURES, Architecture, Role, read_structure, scalars_of, shared_window
from colbuild.arch.correspondence import biased
from colbuild.errors import BuildError
from colbuild.export.graph.graph_nodes import set_value
from colbuild.export.graph.grouped_attention import can_group, group
from colbuild.export.graph.opset import in_opset
from colbuild.weights.files.transformers_config import transformers_config

PROVIDERS: Final[Mapping[str, str]] = {"contrib": "default", "standard": "onnx-standard"}
"""Which of the library's targets a profile's `operators` are: with onnxruntime's own normalisation, or ONNX's operators
alone. Its own attention is put in afterwards (`colbuild.export.graph.grouped_attention`)."""

_TABLES: Final = ("cos_cache", "sin_cache")
_LENGTHS: Final[Mapping[str, str]] = {
    "batch": "batch_size",
    "sequence_len": "sequence_length",
    "past_sequence_len": "past_sequence_length",
    "past_seq_len + seq_len": "total_sequence_length",
    "past_sequence_len + sequence_len": "total_sequence_length",
}

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class EmptyDecoder:
    """A graph without its weights, and the weights as it names them.

    Attributes:
        model: The graph, whose initializers without a value are weights.
        weights: What fills them in: views of the checkpoint's tensors, as far as the two are laid out alike.
    """

    model: onnx_ir.Model
    weights: Weights


def decoder_graph(
    config: Mapping[str, Any],
    weights: Weights,
    context: int,
    operators: str = "contrib",
    *,
    half: bool = False,
    sequence: int | None = None,
    opset: int | None = None,
) -> EmptyDecoder:
    """The graph of the model that a config.json describes.

    Args:
        config: What config.json holds.
        weights: The model's tensors by name, as the checkpoint has them.
        context: Positions beyond it are cut off the tables, so that running past it is an error, not noise.
        operators: `contrib` or `standard`, as in a profile.
        half: Whether weights, cache and logits are float16; else they are float32.
        sequence: Tokens in each call, if all lengths shall be fixed.
        opset: The version of ONNX's operator set; by default the one that the library builds in.

    Raises:
        BuildError: The configuration asks for something that the library cannot build, or the graph needs tensors that the
            checkpoint does not have, or leaves some out; or a window shorter than the context that the operators do not have.
    """
    import mobius

    architecture, dtype = _architecture(config), onnx_ir.DataType.FLOAT16 if half else onnx_ir.DataType.FLOAT
    try:
        module, settings = _module(config, dtype)
        built = mobius.build_from_module(module, settings, execution_provider=PROVIDERS[operators])
        model: onnx_ir.Model = built["model"]
        named = _renamed(module, _scaled(weights, config), architecture)
    except (KeyError, ValueError, NotImplementedError) as error:
        raise BuildError(f"no ONNX graph can be built for this model's config.json: {error}") from error
    window = shared_window(config)
    if operators == "contrib" and sequence is None and can_group(config, settings.head_dim):
        group(model, window)
    elif window is not None and window < context:
        raise BuildError(
            f"the model's attention has a window of {window:,} tokens, and the profile's context of {context:,} is longer: "
            "only onnxruntime's own attention supports such a window",
            hint=f"write context: {window}, or operators: contrib without static lengths",
        )
    _strip(model)
    _name_lengths(model, sequence, context)
    _tie(model, named, architecture)
    _cut(model, named, context, architecture)
    if opset is not None:
        model = in_opset(model, opset)
    _check(model, named)
    return EmptyDecoder(model, named)


def graph_weights(config: Mapping[str, Any], weights: Weights) -> Weights:
    """A model's tensors as the graph names them, and laid out as it reads them; nothing is cut to a context."""
    module, _ = _module(config, onnx_ir.DataType.FLOAT)
    return _renamed(module, _scaled(weights, config), _architecture(config))


@dataclass(frozen=True)
class Origin:
    """The origin of a graph's matrix [rows, columns].

    Attributes:
        parameter: The model's tensor that it is a part of.
        turned: Whether it is a part of that tensor's transpose.
        rows: Which rows [rows] of it, or of its transpose.
    """

    parameter: str
    turned: bool
    rows: torch.Tensor


def matrix_origins(config: Mapping[str, Any], weights: Weights) -> Mapping[str, Origin]:
    """Returns the origin of every matrix, by its name in the graph: some are stacked or transposed in the model.

    What the library does with weights is done with the numbers of their rows instead, and of their columns.
    """
    (module, _), architecture = _module(config, onnx_ir.DataType.FLOAT), _architecture(config)
    names = [name for name, tensor in weights.items() if tensor.ndim == 2]
    by_row, by_column = {}, {}
    for place, name in enumerate(names):
        rows, columns = weights[name].shape
        by_row[name] = (torch.arange(rows) + place * _APART)[:, None].expand(rows, columns)
        by_column[name] = (torch.arange(columns) + place * _APART)[None].expand(rows, columns)
    rest = {name: tensor for name, tensor in weights.items() if name not in by_row}
    upright, lying = (_renamed(module, {**rest, **numbered}, architecture) for numbered in (by_row, by_column))
    found = {}
    for name, numbers in upright.items():
        if numbers.ndim != 2 or numbers.is_floating_point():
            continue
        turned = bool((numbers[:, 0] != numbers[:, -1]).any())
        ids = (lying[name] if turned else numbers)[:, 0]
        found[name] = Origin(names[int(ids[0]) // _APART], turned, ids % _APART)
    return found


_APART: Final = 1 << 32
"""More rows than any tensor has."""


def _module(config: Mapping[str, Any], dtype: onnx_ir.DataType) -> tuple[Any, Any]:
    """The library's module for a configuration, and its settings."""
    import mobius

    found = mobius.ArchitectureConfig.from_transformers(transformers_config(config))
    # mobius 0.1.0 guesses from names of settings, and of architectures, which projections have a bias. Which do we know, and
    # which head is tied to which embedding.
    roles = biased(read_structure(config))
    biases = {
        "attn_qkv_bias": Role.ATTENTION_IN in roles,
        "attn_o_bias": Role.ATTENTION_OUT in roles,
        "mlp_bias": Role.FFN_OUT in roles,
    }
    settings = replace(found, dtype=dtype, tie_word_embeddings=False, **biases)
    module = mobius.registry.get(config["model_type"])(settings)
    _adapt(module, config)
    return module, settings


def _architecture(config: Mapping[str, Any]) -> Architecture:
    return ARCHITECTURES[config["model_type"]]


def _heads(architecture: Architecture) -> tuple[str, ...]:
    """What the graph may call the head."""
    names = architecture.named(Role.HEAD)
    return (*names, *(architecture.stored_name(name) for name in names))


def _adapt(module: Any, config: Mapping[str, Any]) -> None:
    """Makes the library's modules compute what transformers' do where they do not.

    An FFN may be read behind attention where the library knows both side by side only. An embedding that is multiplied by the
    root of its width is multiplied by a number that the library rounds to half precision, as a model in bfloat16 would.
    """
    architecture = _architecture(config)
    [embedding], block = architecture.named(Role.EMBEDDING), architecture.block
    if architecture.scales_embedding:
        embed = reduce(getattr, embedding.split(".")[:-1], module)
        embed.embed_scale = float(config[architecture.config_keys["hidden"]]) ** 0.5
    if architecture.side_by_side is None or config.get(architecture.side_by_side, True):
        return
    first, second = block["attention_norm"], block["ffn_norm"]

    def sequential(
        layer: Any,
        op: Any,
        hidden_states: Any,
        attention_bias: Any,
        position_embeddings: Any,
        past_key_value: Any = None,
    ) -> tuple[Any, Any]:
        read = getattr(layer, first)(op, hidden_states)
        added, present = layer.attention(op, read, attention_bias, position_embeddings, past_key_value)
        behind = op.Add(hidden_states, added)
        return op.Add(behind, layer.mlp(op, getattr(layer, second)(op, behind))), present

    for layer in reduce(getattr, architecture.stem.split(".")[:-1], module):
        layer.forward = MethodType(sequential, layer)


def _scaled(weights: Weights, config: Mapping[str, Any]) -> Weights:
    """Queries so long that scores come out right where the library divides these by another number than the model."""
    structure = read_structure(config)
    architecture, width = structure.architecture, structure.shape.head_dim
    wanted = scalars_of(structure, config).attention_width
    if not architecture.graph.scales_queries or wanted == width:
        return weights
    times, offset = (width / wanted) ** 0.5, architecture.norm_offset
    end = f"{architecture.block['query_norm']}.weight"
    norms = {name: tensor for name, tensor in weights.items() if name.endswith(end)}
    return {**weights, **{name: (offset + tensor.float()) * times - offset for name, tensor in norms.items()}}


def _renamed(module: Any, weights: Weights, architecture: Architecture) -> dict[str, torch.Tensor]:
    """The weights under the graph's names, and laid out as it reads them."""
    named: dict[str, torch.Tensor] = dict(module.preprocess_weights(dict(weights)))
    heads = _heads(architecture)
    if not any(head in weights for head in heads):
        for head in heads:
            named.pop(head, None)
    for name, tensor in weights.items():
        # The library tells from its shape which way round such an FFN lies, and is wrong where that is narrower than the rest.
        for old, new in architecture.graph.renamed.items():
            if name.endswith(f"{old}.weight"):
                named[name.replace(old, new)] = tensor.T
    return named


def _name_lengths(model: onnx_ir.Model, sequence: int | None, context: int) -> None:
    """Calls lengths that may vary what optimum calls them; Transformers.js sizes the first cache by these names.

    With a `sequence` nothing varies: one text, as many tokens a call, and a cache that holds the whole context but for the one
    token that a call must have.
    """
    told: Mapping[str, str | int] = _LENGTHS
    if sequence is not None:
        fixed = {
            "batch_size": 1,
            "sequence_length": sequence,
            "past_sequence_length": context - 1,
            "total_sequence_length": context - 1 + sequence,
        }
        told = {theirs: fixed[name] for theirs, name in _LENGTHS.items()}
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape = onnx_ir.Shape(
                [told.get(str(one.value), one) if isinstance(one, onnx_ir.SymbolicDim) else one for one in value.shape]
            )


def _tie(model: onnx_ir.Model, weights: dict[str, torch.Tensor], architecture: Architecture) -> None:
    """Lets a head that the checkpoint does not have read the embedding."""
    initializers = model.graph.initializers
    [embedding] = architecture.named(Role.EMBEDDING)
    for name in _heads(architecture):
        if name in initializers and name not in weights:
            onnx_ir.convenience.replace_all_uses_with(initializers[name], initializers[embedding])
            del initializers[name]


def _cut(model: onnx_ir.Model, weights: dict[str, torch.Tensor], context: int, architecture: Architecture) -> None:
    for name, value in model.graph.initializers.items():
        if name.endswith(_TABLES) and value.const_value is not None:
            set_value(value, value.const_value.numpy()[:context])
    for name in architecture.named(Role.POSITION):
        weights[name] = weights[name][:context]


def _check(model: onnx_ir.Model, weights: Weights) -> None:
    """Compares an empty graph with what is to fill it."""
    needed = {name for name, value in model.graph.initializers.items() if value.const_value is None}
    if odd := sorted(needed ^ set(weights)):
        raise BuildError(
            f"the ONNX graph and the model differ in these tensors: {', '.join(odd[:4])}{' …' if odd[4:] else ''}",
            hint="report this: the graph does not support a setting of the model's config.json",
        )


def _leave_out(graph: onnx_ir.Graph) -> None:
    """Tells operators which of their results nobody reads, so that these are not computed."""
    for node in graph:
        for output in node.outputs:
            if not output.uses() and not output.is_graph_output():
                output.name = ""


def _strip(model: onnx_ir.Model) -> None:
    """Removes what says how the graph was made: it is of no use to a device, and may differ between runs."""
    RemoveUnusedNodesPass()(model)
    _leave_out(model.graph)
    model.producer_name, model.producer_version = "colbuild", __version__
    model.graph.name = "decoder"
    model.doc_string = None
    model.metadata_props.clear()
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            for output in node.outputs:
                output.metadata_props.clear()
    for function in model.functions.values():
        function.metadata_props.clear()
