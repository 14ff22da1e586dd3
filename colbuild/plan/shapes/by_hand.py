"""Shapes that are written in a spec, and refusals of impossible sizes and shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from colbuild.arch import Shape, Structure
from colbuild.arch.solving import refusals
from colbuild.spec import LoadedFamily, Problem
from colbuild.spec.model.family import ShapeRequest
from colbuild.spec.text.places import Path

SIZE_HINT: Final = "ask for another size, or write a shape"


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


def completed(request: ShapeRequest, ansnet: Shape) -> Shape:
    """A shape by hand, with the AnsNet's lengths where it has none."""
    return replace(ansnet, **request.model_dump(exclude_none=True))


def requested(shape: Shape) -> ShapeRequest:
    """A shape as it is written by hand."""
    return ShapeRequest(**{axis: getattr(shape, axis) for axis in ShapeRequest.model_fields})


def legal(
    loaded: LoadedFamily, path: Path, named: str, request: ShapeRequest, start: Structure, shape: Shape | None = None
) -> Shape:
    """The shape that a request means, if it can be.

    Args:
        loaded: The family.
        path: Of the request, in the family.
        named: What messages call who has it.
        request: The shape as it is written.
        start: What it is a subset of.
        shape: The same, completed; by default by the lengths of `start`.

    Raises:
        RefusedError: With every reason, at the axis that it is about.
    """
    shape = shape or completed(request, start.shape)
    problems = []
    for reason in refusals(shape, start):
        axis = next((axis for axis in request.model_dump(exclude_none=True) if reason.startswith(axis)), "")
        problems.append(Problem(loaded.places.nearest((*path, axis)), f"{named}: {reason}"))
    if problems:
        raise RefusedError(*problems)
    return shape
