"""A mixture of two anchors: the share of the smaller one for each part, and the fill of missing parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from colbuild.arch import Role, Tensor

Fill = Literal["donor", "zero", "copy"]
"""How the smaller anchor is expanded, where it lacks FFN channels, heads or layers; each way keeps its function.

- `donor`: they are the larger anchor's, and write nothing into the residual stream.
- `zero`: every weight of theirs is 0 (Chain-of-Learngene, arXiv 2605.07783, section 3.3).
- `copy`: channels and heads are copies of its own, which share what the original wrote (Net2Net, arXiv 1511.05641,
  section 2.2); layers are copies of the nearest one, and write nothing.

Residual channels that it lacks are the larger anchor's with `donor` and `copy`, so that its function is kept only where there
are none; with `zero` they are 0, and an RMS norm before them is rescaled for it. A norm over the queries or keys of all heads
(`colbuild.arch.wide_norms`) sees the larger anchor's heads too: there `donor` keeps the function only where all are shared.
"""

Shares = tuple[bool, Fill, float, float, float]
"""Of one tensor: `nested`, `expansion`, alpha, and by how much the output of what only the larger anchor has is silenced."""


@dataclass(frozen=True)
class Mix:
    """The share of the smaller anchor in each group; 0 is all larger, 1 is all smaller.

    Attributes:
        embedding: Embedding, head and norms.
        attention: Attention projections.
        mlp: Feed-forward projections.
        fill: Output of FFN channels and heads that only the larger anchor has: scaled by 1 - fill.
        depth: Output of layers that only the larger anchor has: scaled by 1 - depth.
        nested: The nested student's prefix takes the smaller anchor's place; it lacks nothing, so `fill` and `depth` do
            nothing.
        expansion: What takes the place of what the smaller anchor lacks. But for `donor` it is mixed by the alpha of its
            group, and `fill` and `depth` do nothing.
        layers: The alpha of each layer, for all groups in it, `fill` and `depth`; empty where groups have theirs.
    """

    embedding: float
    attention: float
    mlp: float
    fill: float
    depth: float
    nested: bool = False
    expansion: Fill = "donor"
    layers: tuple[float, ...] = ()

    def alpha(self, tensor: Tensor) -> float:
        """The share of the smaller anchor in a tensor."""
        if self.layers and tensor.layer is not None:
            return self.layers[tensor.layer]
        return float(getattr(self, _GROUP[tensor.role]))

    def silence(self, tensor: Tensor, what: Literal["fill", "depth"]) -> float:
        """By how much the output of what only the larger anchor has is silenced."""
        if self.expansion != "donor" or (self.layers and tensor.layer is not None):
            return self.alpha(tensor)
        return self.fill if what == "fill" else self.depth

    def shares(self, tensor: Tensor) -> Shares:
        """All of a mixture that decides about one tensor: mixtures that have these in common make the same of it."""
        writes = tensor.role in WRITES
        silenced = (self.silence(tensor, "fill"), self.silence(tensor, "depth")) if writes else (0.0, 0.0)
        return self.nested, self.expansion, self.alpha(tensor), *silenced

    def to_json(self) -> dict[str, Any]:
        """Its fields; those beyond the groups only where they say something."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _ALWAYS}
        if self.expansion != "donor":
            found["expansion"] = self.expansion
        return {**found, "layers": list(self.layers)} if self.layers else found


_ALWAYS: Final = ("embedding", "attention", "mlp", "fill", "depth", "nested")

_GROUP: Final = {
    Role.EMBEDDING: "embedding",
    Role.HEAD: "embedding",
    Role.POSITION: "embedding",
    Role.NORM: "embedding",
    Role.NORM_BIAS: "embedding",
    Role.BRANCH_NORM: "embedding",
    Role.HEAD_NORM: "attention",
    Role.ATTENTION_IN: "attention",
    Role.ATTENTION_OUT: "attention",
    Role.FFN_IN: "mlp",
    Role.FFN_OUT: "mlp",
}

WRITES: Final = (Role.ATTENTION_OUT, Role.FFN_OUT, Role.BRANCH_NORM)
"""The roles of tensors that decide how much a branch writes into the residual stream."""


def even(alpha: float, expansion: Fill = "donor") -> Mix:
    """The straight line between the larger anchor's subset (0) and the smaller anchor, expanded (1)."""
    silenced = alpha if expansion == "donor" else 0.0
    return Mix(alpha, alpha, alpha, silenced, silenced, expansion=expansion)


SUBSET: Final = even(0.0)
"""The larger anchor's subset: nothing of the smaller one."""

EXPAND: Final = even(1.0)
"""The smaller anchor, expanded by silent parts: its own function, unless hidden widths differ."""

PATCH: Final = Mix(1.0, 1.0, 1.0, 0.0, 0.0)
"""The smaller anchor, with layers (channels, heads) that it lacks from the larger one, as they are there."""
