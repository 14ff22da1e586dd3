"""Changes of inputs that a damaged disk, a careless tool or an attacker makes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1 << 31, 1 << 63, 1 << 70, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "0", "\x00", "\x1b[2J\x07", "\u202e", "\ud800", "../../outside/written", "/dev/zero", "~",
    "a" * 10_000, [], {}, [[]], {"": None}, [None] * 1000,
)  # fmt: skip
"""Values of other types and sizes than a field has."""

_INTS: Final = tuple(
    value.to_bytes(8, "little") for value in (0, 1, 255, 2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
)


def mutated_bytes(random: Random, seed: bytes) -> bytes:
    """Some damage: flipped, cut, doubled or overwritten places."""
    data = bytearray(seed)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        random.choice(_DAMAGE)(random, data)
    return bytes(data)


def _flip(random: Random, data: bytearray) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _cut(random: Random, data: bytearray) -> None:
    del data[random.randrange(len(data) + 1) :]


def _double(random: Random, data: bytearray) -> None:
    start = random.randrange(len(data) + 1)
    data[start:start] = data[start : start + random.randrange(1, 4096)]


def _remove(random: Random, data: bytearray) -> None:
    start = random.randrange(len(data) + 1)
    del data[start : start + random.randrange(1, 64)]


def _number(random: Random, data: bytearray) -> None:
    # Counts and offsets stand at the beginning of most formats.
    start = random.randrange(min(len(data), random.choice((64, 4096, 1 << 30))) + 1)
    data[start : start + 8] = random.choice(_INTS)


def _noise(random: Random, data: bytearray) -> None:
    start = random.randrange(len(data) + 1)
    data[start : start + 16] = random.randbytes(16)


_DAMAGE: Final[tuple[Callable[[Random, bytearray], None], ...]] = (
    _flip,
    _flip,
    _cut,
    _double,
    _remove,
    _number,
    _noise,
)


def mutated_value(random: Random, value: Any) -> Any:
    """A copy of what a JSON or YAML file holds, with some of its nodes replaced, removed, renamed or nested."""
    box = {"": copy.deepcopy(value)}
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        places = list(_places(box))
        holder, key = random.choice(places)
        change = random.randrange(6)
        if change == 0 and holder is not box:
            del holder[key]
        elif change == 1 and isinstance(holder, dict) and holder is not box:
            holder[random.choice(("", "\x1b", str(key) * 2, "__class__"))] = holder.pop(key)
        elif change == 2:
            holder[key] = [holder[key]]
        else:
            holder[key] = copy.deepcopy(random.choice(ODD_VALUES))
    return box.get("")


def mutated_json(random: Random, value: Any) -> bytes:
    """The bytes of a JSON file: its values changed, or its bytes, or nested without end."""
    if random.random() < 0.03:
        return deep_json(random.choice((500, 5_000, 200_000)))
    text = json.dumps(mutated_value(random, value)).encode("utf-8", errors="surrogatepass")
    return mutated_bytes(random, text) if random.random() < 0.3 else text


def deep_json(depth: int) -> bytes:
    """Lists in lists."""
    return b"[" * depth + b"]" * depth


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every node with what holds it."""
    found: list[tuple[Any, Any]] = []
    waiting = [node]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return found
