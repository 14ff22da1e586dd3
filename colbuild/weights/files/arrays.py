"""Arithmetic on weights as numpy arrays of float32, float16 or bfloat16, in place, without torch.

Every operation computes in float32 and rounds once, to nearest even. A bfloat16 is the upper half of a float32: numpy's own
loops over such integers are several times faster than those of ml_dtypes over its type.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]

BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)

_QUIET: Final = np.errstate(over="ignore", invalid="ignore")
"""What overflows is infinite, and found when the result is checked."""

# Of each type: its bits with and without a sign, and the bits of infinity; NaN has more.
_INFINITE: Final = {
    np.dtype(np.float32): (np.int32, np.uint32, 0x7F800000),
    np.dtype(np.float16): (np.int16, np.uint16, 0x7C00),
    BFLOAT16: (np.int16, np.uint16, 0x7F80),
}

_AT_ONCE: Final = 1 << 16
"""Numbers whose float32 exist at once: they stay in the processor's cache."""

_own = threading.local()
"""The buffers of each thread: memory that is freed and taken again is cleared by the kernel each time."""


def as_array(tensor: torch.Tensor) -> Array:
    """The memory of a tensor on the CPU that lies together."""
    import torch

    if tensor.dtype is torch.bfloat16:
        return tensor.detach().view(torch.int16).numpy().view(BFLOAT16)
    found: Array = tensor.detach().numpy()
    return found


def type_of(tensor: torch.Tensor) -> np.dtype[Any]:
    """A tensor's type, as numpy calls it."""
    return np.dtype(str(tensor.dtype).removeprefix("torch."))


def all_finite(numbers: Array) -> bool:
    """Returns whether every entry is a finite number."""
    if numbers.dtype not in _INFINITE:
        return bool(np.isfinite(numbers).all())
    signed, unsigned, infinite = _INFINITE[numbers.dtype]
    if not numbers.size:
        return True
    # The largest of all positive numbers, then, by the sign bit above all others, of the negative ones.
    negative = infinite + (1 << (8 * numbers.itemsize - 1))
    return bool(numbers.view(signed).max() < infinite) and bool(numbers.view(unsigned).max() < negative)


@_QUIET
def mix_in(mine: Array, other: Array, share: float) -> None:
    """(1 - share) mine + share other, in place; exactly one of them at a share of 0 or 1."""
    for some in _pieces(mine):
        ours, theirs = _wide(mine[some], "ours"), _wide(other[some], "theirs")
        made = np.subtract(theirs, ours, out=_room("made", ours.shape))
        if share < 0.5:
            made *= np.float32(share)
            made += ours
        else:
            made *= np.float32(1.0) - np.float32(share)
            np.subtract(theirs, made, out=made)
        _store(mine[some], made)


@_QUIET
def multiply(mine: Array, factor: float) -> None:
    """A multiple, in place."""
    for some in _pieces(mine):
        ours = mine[some]
        _store(ours, np.multiply(_wide(ours, "ours"), np.float32(factor), out=_room("made", ours.shape)))


@_QUIET
def multiply_each(mine: Array, factors: Array) -> None:
    """The same by a factor for each row or column."""
    _store(mine, _wide(mine, "ours") * factors)


@_QUIET
def rescale(mine: Array, scale: float, offset: float = 0.0) -> None:
    """(mine + offset) * scale - offset, in place, rounded once."""
    wide = mine.astype(np.float64)
    _store(mine, ((wide + offset) * scale - offset).astype(np.float32))


def _pieces(numbers: Array) -> Iterator[slice]:
    """Some rows at a time."""
    rows = max(1, _AT_ONCE // max(1, prod(numbers.shape[1:])))
    return (slice(start, start + rows) for start in range(0, len(numbers), rows))


def _room(name: str, shape: tuple[int, ...]) -> Array:
    """A float32 buffer of this thread's, which holds until it is asked for again."""
    size = prod(shape)
    buffer: Array | None = getattr(_own, name, None)
    if buffer is None or buffer.size < size:
        if size > _AT_ONCE:
            return np.empty(shape, np.float32)
        buffer = np.empty(_AT_ONCE, np.float32)
        setattr(_own, name, buffer)
    return buffer[:size].reshape(shape)


def _wide(numbers: Array, name: str) -> Array:
    """As float32; in a buffer where that is another type."""
    if numbers.dtype == np.float32:
        return numbers
    room = _room(name, numbers.shape)
    if numbers.dtype != BFLOAT16:
        np.copyto(room, numbers)
        return room
    bits = room.view(np.uint32)
    np.copyto(bits, numbers.view(np.uint16))
    bits <<= np.uint32(16)
    return room


def _store(mine: Array, wide: Array) -> None:
    """Rounds float32 to the type of where it goes; `wide` is used up."""
    if mine.dtype != BFLOAT16:
        mine[...] = wide
        return
    bits = wide.view(np.uint32)
    # Half of the last place, less one if the last bit is even: what is in the middle becomes even.
    up = np.right_shift(bits, np.uint32(16), out=_room("up", wide.shape).view(np.uint32))
    up &= np.uint32(1)
    up += np.uint32(0x7FFF)
    bits += up
    bits >>= np.uint32(16)
    np.copyto(mine.view(np.uint16), bits, casting="unsafe")
