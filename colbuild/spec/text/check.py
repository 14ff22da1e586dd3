"""Checks a tree against a model, and reports each mistake at its place."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Annotated, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from colbuild.bounds import SPEC_PROBLEMS
from colbuild.spec.model.family import API_VERSION
from colbuild.spec.model.fields import NAME_PATTERN, UNION
from colbuild.spec.model.typed import PARTIAL
from colbuild.spec.text.nodes import Fields, Items, Node, Scalar, plain
from colbuild.spec.text.places import Place
from colbuild.spec.text.problems import Problem
from colbuild.units import UnitError

M = TypeVar("M", bound=BaseModel)


def check(model: type[M], node: Node, *, partial: bool = False) -> tuple[M | None, list[Problem]]:
    """The tree as a value of `model`, or everything that is wrong with it.

    Args:
        model: What it should be.
        node: The tree.
        partial: It is merged with others before it counts.
    """
    try:
        return model.model_validate(plain(node), context={PARTIAL: partial}), []
    except ValidationError as error:
        # Each is compared with all keys there are: of a hostile file there may be a hundred thousand.
        every = [_without_tags(details) for details in error.errors(include_url=False)[: 10 * SPEC_PROBLEMS]]
        found = [_problem(model, node, details) for details in every if details["type"] != "missing"]
        return None, [*(problem for problem in found if problem), *_missing(node, every)]


def _without_tags(details: ErrorDetails) -> ErrorDetails:
    loc = details["loc"]
    # A key that nobody knows may begin as a tag does.
    written = len(loc) - 1 if details["type"] == "extra_forbidden" else None
    kept = (part for place, part in enumerate(loc) if place == written or not str(part).startswith(UNION))
    return {**details, "loc": tuple(kept)}


def suggest(word: str, known: Sequence[str]) -> str | None:
    """The known word that was most likely meant."""
    lowered = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def _problem(model: type[BaseModel], root: Node, details: ErrorDetails) -> Problem | None:
    loc = details["loc"]
    kind = details["type"]
    node, key = _find(root, loc)
    name = _name(loc)
    if kind == "extra_forbidden":
        return _unknown(model, loc, key)
    if kind == "too_short" and isinstance(node, Items) and node.items:
        return None  # pydantic counts valid items only; what is wrong with the others is told anyway
    message, hint = _words(kind, name, node, details)
    if loc == ("apiVersion",):
        hint = f"write '{API_VERSION}', or use a newer colbuild"
    unwritten = isinstance(node, Scalar) and not node.text
    return Problem(key if key and unwritten else node.place, message, hint)


def _find(root: Node, loc: tuple[str | int, ...]) -> tuple[Node, Place | None]:
    """The node at a location, or the last one before it, and its key's place."""
    node, key = root, None
    for part in loc:
        if isinstance(node, Fields) and part in node.entries:
            entry = node.entries[str(part)]
            node, key = entry.value, entry.key
        elif isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
            node, key = node.items[part], None
        else:
            break
    return node, key


def _name(loc: tuple[str | int, ...]) -> str:
    """What a message calls a value: its key, and for an item of a list that of the list."""
    parts = [part for part in loc if isinstance(part, str)]
    if not loc:
        return "the file"
    if isinstance(loc[-1], int):
        return f"item {loc[-1] + 1} of '{parts[-1]}'" if parts else f"item {loc[-1] + 1}"
    return f"'{loc[-1]}'"


def _unknown(model: type[BaseModel], loc: tuple[str | int, ...], key: Place | None) -> Problem:
    word = str(loc[-1])
    known = _keys(model, loc[:-1])
    inside = _name(loc[:-1])
    likely = suggest(word, known)
    hint = f"did you mean '{likely}'?" if likely else f"known keys: {', '.join(known)}"
    if word.isdigit():
        hint = "write 100_000 or 100k for a hundred thousand: a ',' ends a value here"
    return Problem(key, f"unknown key '{word}' in {inside}", hint)


def _missing(root: Node, every: Sequence[ErrorDetails]) -> Iterator[Problem]:
    """What is missing: one problem for each mapping or list that lacks something."""
    lacking: dict[tuple[str | int, ...], list[str | int]] = {}
    for details in every:
        if details["type"] == "missing":
            lacking.setdefault(details["loc"][:-1], []).append(details["loc"][-1])
    for loc, parts in lacking.items():
        place = _find(root, loc)[0].place
        if isinstance(parts[0], int):
            yield Problem(place, f"{_name(loc)} has too few values: number {parts[0] + 1} is missing")
            continue
        *most, last = (f"'{part}'" for part in parts)
        named = f"{', '.join(most)} and {last} are" if most else f"{last} is"
        hint = f"start with 'apiVersion: {API_VERSION}'" if "apiVersion" in parts else None
        yield Problem(place, f"{named} missing in {_name(loc)}", hint)


_BOUNDS: Final = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_WANTED: Final = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
    "bool_type": "true or false",
}


def _words(kind: str, name: str, node: Node, details: ErrorDetails) -> tuple[str, str | None]:
    """Message and hint for one kind of mistake."""
    ctx = details.get("ctx", {})
    if kind in _WANTED:
        return f"{name} must be {_WANTED[kind]}, not {_called(node)}", _rewrite(kind, node)
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        bound = int(ctx[key]) if ctx[key] == int(ctx[key]) else ctx[key]
        return f"{name} must be {words} {bound}, not {_called(node)}", None
    if kind == "literal_error":
        choices = [choice.strip("'") for choice in str(ctx["expected"]).replace(" or ", ", ").split(", ")]
        likely = suggest(str(plain(node)), choices) if isinstance(node, Scalar) else None
        rule = f"it can be {', '.join(choices)}" if len(choices) > 1 else f"it can only be {choices[0]}"
        return f"{name} cannot be {_called(node)}: {rule}", f"did you mean {likely}?" if likely else None
    if kind == "string_pattern_mismatch":
        return _pattern(name, node, str(ctx["pattern"]))
    if kind in ("too_short", "string_too_short"):
        return f"{name} is empty", "write at least one" if kind == "too_short" else None
    if kind in ("too_long", "string_too_long"):
        return (
            f"{name} is too long: at most {ctx['max_length']} {'items' if kind == 'too_long' else 'characters'}",
            None,
        )
    error = ctx.get("error")
    if isinstance(error, UnitError):
        readable = isinstance(node, Scalar) and node.text and not isinstance(node.value, bool)
        if not readable:
            return f"{name} must be a number, not {_called(node)}", _rewrite(kind, node) or error.hint
        return f"{name}: {error.message}", error.hint
    if isinstance(error, ValueError):
        message, _, advice = str(error).partition("; ")
        return f"{name}: {message}", advice or None
    return details["msg"], ctx.get("hint")  # our own: PydanticCustomError in a model


def _pattern(name: str, node: Node, pattern: str) -> tuple[str, str | None]:
    text = node.text if isinstance(node, Scalar) else ""
    shown = _shortened(text)
    if pattern != NAME_PATTERN:
        return (
            f"{name}: '{shown}' is not a sha256",
            "write 64 hexadecimal digits in lower case, as sha256sum prints them",
        )
    last = text.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".yml")
    rule = "use letters, digits, '.', '_' and '-', beginning with a letter or digit"
    hint = f"did you mean '{last}'?" if last and last != text else rule
    return f"{name}: '{shown}' is not a valid name: names are also folder names, without paths and spaces", hint


def _rewrite(kind: str, node: Node) -> str | None:
    """What to write instead, where a value is right and only its form is wrong."""
    if not isinstance(node, Scalar):
        return "write its items with '- ' before each, or in [ ]" if kind == "tuple_type" else None
    if node.value is None:
        return "leave the key out, or give it a value"
    if kind == "string_type":
        return f'quote it: "{node.text}"'
    if kind == "tuple_type":
        return f"write a list: [{_shortened(node.text)}]"
    if kind == "model_type" and node.text.endswith((".yaml", ".yml")):
        return f"write {{recipe: {_shortened(node.text)}}}"
    if kind == "model_type" and ":" in node.text:
        return "write 'key: value', with a space after the ':'"
    return None


def _called(node: Node) -> str:
    """What a value is called in a message."""
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Fields):
        return "a mapping"
    if node.value is None:
        return "nothing"
    return f"'{_shortened(node.text)}'" if isinstance(node.value, str) else node.text[:60]


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that a mapping at this location may have."""
    found: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, str) and found is not None:
            fields = {info.alias or key: info for key, info in found.model_fields.items()}
            found = _model_in(fields[part].annotation) if part in fields else None
    return [info.alias or key for key, info in found.model_fields.items()] if found else []


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model that an annotation such as `tuple[Anchor, ...] | None` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple, Annotated):
        return next((found for found in map(_model_in, get_args(annotation)) if found is not None), None)
    return None
