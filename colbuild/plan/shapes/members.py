"""The members of a family: its models, each with its shape, and where in the chain a DesNet lies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from colbuild.arch import Shape, Structure, parameters
from colbuild.arch.solving import refusals
from colbuild.plan.shapes.bridge_shape import BRIDGE
from colbuild.plan.shapes.placed_anchors import completed
from colbuild.spec import LoadedFamily, Problem
from colbuild.spec.model.family import Anchor, Family, Sized
from colbuild.spec.text.places import Path
from colbuild.units import format_count

ANSNET = "ansnet"
"""The AnsNet's name among the members, and its folder's in `out/`."""

HEADS = {ANSNET: "the AnsNet", BRIDGE: "the bridge"}
"""What the chain can begin with -> what messages call it."""

SIZE_HINT = "ask for another size, or write a shape"


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
        """Its parameters, as messages say them."""
        return format_count(self.parameters)

    @property
    def called(self) -> str:
        """What messages call the AnsNet, the bridge or an anchor."""
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


class RefusedError(Exception):
    """A size or shape that cannot be. It is caught where all of them are told at once.

    Attributes:
        problems: Why not, each at its place.
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__(problems)
        self.problems = problems


def refused(loaded: LoadedFamily, path: Path, message: str, hint: str) -> RefusedError:
    """A refusal with one reason, told at a value's place."""
    return RefusedError(Problem(loaded.places.nearest(path), message, hint))


def shape_by_hand(loaded: LoadedFamily, path: Path, item: Sized, top: Member) -> Shape | None:
    """The shape given by hand, completed by the AnsNet's; None when there is none.

    Raises:
        RefusedError: It cannot be.
    """
    if item.shape is None:
        return None
    given = item.shape.model_dump(exclude_none=True)
    shape = completed(item.shape, top.shape)
    problems = []
    for reason in refusals(shape, top.structure):
        axis = next((axis for axis in given if reason.startswith(axis)), "")
        problems.append(Problem(loaded.places.nearest((*path, "shape", axis)), f"'{item.name}': {reason}"))
    if problems:
        raise RefusedError(*problems)
    return shape


def excess(inner: Shape, outer: Shape, relation: str = "more than") -> str:
    """Which axes of `inner` exceed those of `outer`; told from the smaller side when the relation is "less than"."""
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
