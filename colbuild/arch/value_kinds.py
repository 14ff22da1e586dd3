"""Kinds of values in a config.json: a check of the value, and its description for messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        told: How messages describe the values: "a whole number from 1 to 4,096".
        holds: Whether a value is one of them.
    """

    told: str
    holds: Callable[[Any], bool]


def is_whole(value: Any) -> bool:
    """Returns whether a value is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Returns whether a value is a finite number."""
    return isinstance(value, float | int) and not isinstance(value, bool) and abs(value) < math.inf


def whole(least: int, most: int) -> Kind:
    """Whole numbers within bounds."""
    return Kind(f"a whole number from {least:,} to {most:,}", lambda value: is_whole(value) and least <= value <= most)


def real(least: float, most: float) -> Kind:
    """Numbers within bounds."""
    return Kind(f"a number from {least:g} to {most:g}", lambda value: is_real(value) and least <= value <= most)


def decimal(most: float) -> Kind:
    """Numbers above 0, written with a decimal point or an exponent: transformers takes no whole number for them."""
    return Kind(
        f"a decimal number between 0 and {most:g}", lambda value: isinstance(value, float) and 0.0 < value < most
    )


def choice(*names: str) -> Kind:
    """Some names."""
    return Kind(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def optional(kind: Kind) -> Kind:
    """The same, or null."""
    return Kind(f"{kind.told}, or null", lambda value: value is None or kind.holds(value))


def several(kind: Kind) -> Kind:
    """Lists of a kind."""
    return Kind(
        f"a list with {kind.told} in each place",
        lambda value: isinstance(value, list) and all(kind.holds(one) for one in value),
    )


def either(one: Kind, other: Kind) -> Kind:
    """The values of two kinds."""
    return Kind(f"{one.told}, or {other.told}", lambda value: one.holds(value) or other.holds(value))


FLAG: Final = Kind("true or false", lambda value: isinstance(value, bool))
MAPPING: Final = Kind("a mapping of settings", lambda value: isinstance(value, Mapping))
ANYTHING: Final = Kind("any value", lambda _: True)
ID: Final = Kind("a token id or null", lambda value: value is None or is_whole(value))
IDS: Final = either(ID, several(Kind("a token id", is_whole)))
SHARE: Final = real(0.0, 1.0)
SPREAD: Final = Kind("a decimal number from 0 to 1", lambda value: isinstance(value, float) and 0.0 <= value <= 1.0)
