"""The table of one architecture: its tensors with their named axes, and facts that the tensors do not show.

Everything else of colbuild reads these values and knows no architecture's name. See docs/architectures.md for how to add one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from typing import Any, Final

from colbuild.arch.gguf_form import GGUFForm
from colbuild.arch.value_kinds import Kind


class Role(Enum):
    """The function of a tensor in a block: enough for operators to treat it without its name.

    `NORM` reads the residual stream, `BRANCH_NORM` what a branch is about to write into it, `HEAD_NORM` each head's queries
    or keys, or those of all heads together. A bias has the role of the weight it goes with, but for a norm's, which is
    `NORM_BIAS`.
    """

    EMBEDDING = "embedding"
    POSITION = "position"
    HEAD = "head"
    NORM = "norm"
    NORM_BIAS = "norm_bias"
    BRANCH_NORM = "branch_norm"
    HEAD_NORM = "head_norm"
    ATTENTION_IN = "attention_in"
    ATTENTION_OUT = "attention_out"
    FFN_IN = "ffn_in"
    FFN_OUT = "ffn_out"


NORMS: Final = (Role.NORM, Role.BRANCH_NORM)
"""What normalises over the hidden width."""

FULL: Final = "full_attention"
SLIDING: Final = "sliding_attention"
"""What `layer_types` in config.json calls layers that look at all of a text, and at a window of it."""

SCALINGS: Final = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary scaling that both transformers and an ONNX graph compute alike."""


@dataclass(frozen=True)
class TensorPattern:
    """One line of an architecture's table.

    Attributes:
        name: The tensor's name; `{layer}` stands for the block's index.
        axes: One axis per dimension, slowest first. An axis is a field of `Shape`, a key of `Architecture.fixed`, or a product
            of these and of plain numbers, slowest first: "heads*head_dim", "3*heads*head_dim" for queries, keys and values one
            after the other, "heads*3*head_dim" for the three of each head together.
        role: What the tensor does.
        when: (config flag, value) for a tensor that exists only then; None when it always does.
    """

    name: str
    axes: tuple[str, ...]
    role: Role
    when: tuple[str, bool] | None = None


def layer_norm(name: str) -> tuple[TensorPattern, TensorPattern]:
    """The lines of a LayerNorm, which has a bias."""
    return (
        TensorPattern(f"{name}.weight", ("hidden",), Role.NORM),
        TensorPattern(f"{name}.bias", ("hidden",), Role.NORM_BIAS),
    )


@dataclass(frozen=True)
class Rotary:
    """The rotation of queries and keys by position.

    Attributes:
        scalings: The kinds of scaling that a graph computes as transformers does.
        share: The share of a head's channels that turns where config.json says nothing; None where whole heads turn.
        by_kind: Whether config.json has settings for each kind of layer.
    """

    scalings: tuple[str, ...] = SCALINGS
    share: float | None = None
    by_kind: bool = False


@dataclass(frozen=True)
class Scalar:
    """A number of config.json that a model multiplies or divides by.

    Attributes:
        key: What config.json calls it.
        usual: Its value where config.json says nothing.
    """

    key: str
    usual: float


@dataclass(frozen=True)
class GraphFacts:
    """The facts that the exporter needs.

    Attributes:
        grouped: Whether onnxruntime's grouped attention computes the architecture's: all layers see the same tokens, and whole
            heads turn by one table.
        genai: What onnxruntime-genai calls it.
        renamed: Name in a block -> what the graph calls a projection that it lays out the other way round.
        scales_queries: Whether the graph divides scores by the root of the head width though the model has a number of its own
            (`Architecture.scalars`, "attention_width"): the norm of the queries takes up the difference.
    """

    grouped: bool = False
    genai: str = "decoder"
    renamed: Mapping[str, str] = field(default_factory=dict)
    scales_queries: bool = False


Term = tuple[int, tuple[str, ...]]
"""How many tensors of a kind there are, and the lengths whose product is the size of one in all layers."""


@dataclass(frozen=True)
class Architecture:
    """A family of configurations that one table describes.

    Attributes:
        name: `model_type` in config.json.
        model_class: The class transformers loads it with (`architectures` in config.json).
        tensors: The table.
        block: Part of a block -> its name in the block. The parts are the fields of `colbuild.weights.bridge.blocks.Block`, and
            "stacked" for queries, keys and values in one. Where norms stand follows from it: "attention_norm" and "ffn_norm"
            come before the branches, "attention_end" and "ffn_end" after.
        settings: Key of config.json -> the values it may have. What transformers fills in where a key is missing is right.
        config_keys: Field of `Shape` -> key in config.json. Without "kv_heads" every head has keys and values of its own;
            without "head_dim" a head is always hidden / heads wide, so that both shrink together.
        flags: Config key -> value when config.json does not give it; the only settings the table depends on.
        fixed: Axis -> config key of a length that is the same in every member of a family.
        defaults: Field of `Shape` -> length when config.json gives none; the usual ones need not be named.
        ffn_times: The FFN's width in hidden widths when config.json gives none.
        divides_hidden: Whether transformers insists on a hidden width that the heads divide, whatever width a head has.
        layer_kinds: What `layer_types` may hold for a layer; nothing where config.json has no such list.
        window: The config key of a window that all layers look at; None without one.
        side_by_side: The config key that says, true by default, that attention and FFN read the same; None where they never do.
        norm_offset: What a norm adds to its weight before it multiplies.
        scales_embedding: Whether token embeddings are multiplied by the root of the hidden width.
        scalars: What a number of config.json does (`colbuild.arch.scalars`) -> the number.
        rotary: How positions turn queries and keys; None where they are learned.
        accepts: Config key -> the only value that the table and the operators over it are right for.
        epsilon: The config key of what norms add to a variance.
        activation: The config key of the FFN's activation.
        bridge: Settings of a model of this architecture that follows one of another architecture.
        floating_norms: Whether norms multiply by their weight in float32.
        kept_ffn: How many tensors of the FFN's width a block keeps for the backward pass.
        graph: What the exporter must know.
        gguf: What llama.cpp's files call it; None where llama.cpp does not have it.
        prefix: What files may leave out at the start of every name but the head's.
        stored_as: Tensor -> its name in files, where that is not its name in the model.
        buffers: Ends of names that old files hold and that are no weights.
    """

    name: str
    model_class: str
    tensors: tuple[TensorPattern, ...]
    block: Mapping[str, str]
    settings: Mapping[str, Kind]
    config_keys: Mapping[str, str]
    flags: Mapping[str, bool]
    fixed: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, int] = field(default_factory=dict)
    ffn_times: int | None = None
    divides_hidden: bool = False
    layer_kinds: tuple[str, ...] = ()
    window: str | None = None
    side_by_side: str | None = None
    norm_offset: float = 0.0
    scales_embedding: bool = False
    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    rotary: Rotary | None = field(default_factory=Rotary)
    accepts: Mapping[str, Any] = field(default_factory=dict)
    epsilon: str = "rms_norm_eps"
    activation: str = "hidden_act"
    bridge: Mapping[str, Any] = field(default_factory=dict)
    floating_norms: bool = False
    kept_ffn: int = 4
    graph: GraphFacts = field(default_factory=GraphFacts)
    gguf: GGUFForm | None = None
    prefix: str = ""
    stored_as: Mapping[str, str] = field(default_factory=dict)
    buffers: tuple[str, ...] = ()
    _terms: dict[frozenset[tuple[str, bool]], tuple[Term, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def stored_name(self, name: str) -> str:
        """Returns a tensor's name in files."""
        return self.stored_as.get(name, name)

    def model_name(self, stored: str) -> str:
        """Returns the model's name of a tensor in a file."""
        return next((name for name, other in self.stored_as.items() if other == stored), stored)

    @property
    def ties_widths(self) -> bool:
        """Whether the hidden width is always heads * head_dim."""
        return "head_dim" not in self.config_keys

    @property
    def per_layer(self) -> tuple[str, ...]:
        """Config keys that hold a list with one entry for each layer."""
        return ("layer_types",) if self.layer_kinds else ()

    @property
    def stem(self) -> str:
        """The name pattern of its blocks: "model.layers.{layer}"."""
        in_block = next(pattern.name for pattern in self.tensors if "{layer}" in pattern.name)
        return in_block.partition("{layer}")[0] + "{layer}"

    @property
    def has_norms_before(self) -> bool:
        """Whether norms come before attention and FFN, so that these read a norm of the residual stream and not the stream."""
        return "attention_norm" in self.block

    @property
    def is_gated(self) -> bool:
        """Whether the FFN has a gate beside its input projection."""
        return "gate" in self.block

    def axes_of(self, part: str) -> tuple[str, ...]:
        """The axes of the weight of a part of its blocks."""
        name = f"{self.stem}.{self.block[part]}.weight"
        return next(pattern.axes for pattern in self.tensors if pattern.name == name)

    def part_of(self, name: str, layer: int) -> str:
        """The part of a block that a tensor of a layer belongs to."""
        place = name.removeprefix(f"{self.stem.format(layer=layer)}.").rpartition(".")[0]
        return next(part for part, found in self.block.items() if found == place)

    def named(self, *roles: Role) -> tuple[str, ...]:
        """The names of tensors of some roles, in the order of the table."""
        return tuple(pattern.name for pattern in self.tensors if pattern.role in roles)

    def terms(self, flags: frozenset[tuple[str, bool]]) -> tuple[Term, ...]:
        """The parameter count as a sum of products, worked out once: solving shapes counts hundreds of times for each."""
        if flags not in self._terms:
            products: Counter[tuple[str, ...]] = Counter()
            for pattern in self.tensors:
                if pattern.when is None or pattern.when in flags:
                    factors = [*(("layers",) if "{layer}" in pattern.name else ()), *"*".join(pattern.axes).split("*")]
                    times = prod(int(factor) for factor in factors if factor.isdigit())
                    products[tuple(factor for factor in factors if not factor.isdigit())] += times
            self._terms[flags] = tuple((times, factors) for factors, times in products.items())
        return self._terms[flags]
