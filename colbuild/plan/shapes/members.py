"""The members of a family: its models with their shapes, and the place of a DesNet in the chain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from colbuild.arch import Shape, Structure, parameters
from colbuild.plan.shapes.bridge_shape import BRIDGE
from colbuild.spec.model.family import Anchor, Family
from colbuild.units import format_count

ANSNET = "ansnet"
"""The AnsNet's name among the members, and its folder's in `out/`."""

HEADS = {ANSNET: "the AnsNet", BRIDGE: "the bridge"}
"""What the chain can begin with -> what messages call it."""


@dataclass(frozen=True)
class Member:
    """A model of the family: its name, structure and stored parameters."""

    name: str
    structure: Structure
    parameters: int

    @classmethod
    def of(cls, name: str, structure: Structure) -> Member:
        """A model of this structure."""
        return cls(name, structure, parameters(structure))

    @property
    def shape(self) -> Shape:
        """Lengths of its axes."""
        return self.structure.shape

    @property
    def size(self) -> str:
        """Its parameters, as in messages."""
        return format_count(self.parameters)

    @property
    def called(self) -> str:
        """Its name in messages: the AnsNet, the bridge or an anchor."""
        return HEADS.get(self.name, f"anchor '{self.name}'")


@dataclass(frozen=True)
class Placed:
    """A DesNet and its place in the chain.

    Attributes:
        member: The DesNet.
        larger: The neighbour above it, or the member that it equals.
        smaller: The neighbour below it; None when it equals `larger`.
        packages: Name of each of its profiles -> bytes that its package takes at most.
        mixed: Whether it is made of both neighbours; else of the larger one alone, and the smaller one is not needed.
    """

    member: Member
    larger: Member
    smaller: Member | None
    packages: Mapping[str, int] = field(default_factory=dict)
    mixed: bool = True

    @property
    def needed(self) -> tuple[Member, ...]:
        """The neighbours that it is made of."""
        return (self.larger, self.smaller) if self.smaller is not None and self.mixed else (self.larger,)


@dataclass(frozen=True)
class Members:
    """The models of a family.

    Attributes:
        nodes: The AnsNet, or the bridge in its place, and every anchor, from large to small; each contains the next.
        desnets: Every DesNet in the order of the spec.
        anchors: What the spec says of each anchor, or what was decided of those that colbuild placed itself.
    """

    nodes: tuple[Member, ...]
    desnets: tuple[Placed, ...]
    anchors: tuple[Anchor, ...]

    @property
    def required(self) -> frozenset[int]:
        """Positions in `nodes` of the neighbours that each DesNet is made of."""
        position = {node.name: index for index, node in enumerate(self.nodes)}
        return frozenset(position[node.name] for desnet in self.desnets for node in desnet.needed)


def excess(inner: Shape, outer: Shape, relation: str = "more than") -> str:
    """Returns the axes of `inner` that exceed those of `outer`; from the smaller side if the relation is "less than"."""
    parts = []
    for axis in ("layers", "hidden", "ffn", "kv_heads"):
        ours, theirs = getattr(inner, axis), getattr(outer, axis)
        if ours > theirs:
            first, second = (ours, theirs) if relation == "more than" else (theirs, ours)
            parts.append(f"{axis} {first} is {relation} the {second}")
    return ", ".join(parts) or ("the shapes are equal" if inner == outer else "")


def taken_names(family: Family) -> Collection[str]:
    """Names that a further anchor cannot have."""
    return [*HEADS, *(item.name for item in (*family.anchors, *family.desnets))]
