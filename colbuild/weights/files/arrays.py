"""Arithmetic on weights as numpy arrays of float32, float16 or bfloat16, in place, without torch.

Every operation computes in float32 and rounds once, to nearest even. A bfloat16 is the upper half of a float32: numpy's own
loops over such integers are several times faster than those of ml_dtypes over its type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]

BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)

_QUIET: Final = np.errstate(over="ignore", invalid="ignore")
"""What overflows is infinite, and found when the result is checked."""

# Of each type's bits without the sign: those of infinity; NaN has more.
_INFINITE: Final = {
    np.dtype(np.float32): (np.uint32, 0x7FFFFFFF, 0x7F800000),
    np.dtype(np.float16): (np.uint16, 0x7FFF, 0x7C00),
    BFLOAT16: (np.uint16, 0x7FFF, 0x7F80),
}


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
    kind, mask, infinite = _INFINITE[numbers.dtype]
    return not numbers.size or bool((numbers.view(kind) & kind(mask)).max() < infinite)


@_QUIET
def mix_in(mine: Array, other: Array, share: float) -> None:
    """(1 - share) mine + share other, in place; exactly one of them at a share of 0 or 1."""
    ours, theirs = _wide(mine), _wide(other)
    apart = theirs - ours
    made = mine if mine.dtype == np.float32 else apart
    if share < 0.5:
        apart *= np.float32(share)
        np.add(ours, apart, out=made)
    else:
        apart *= np.float32(1.0) - np.float32(share)
        np.subtract(theirs, apart, out=made)
    _store(mine, made)


@_QUIET
def multiply(mine: Array, factor: float | Array) -> None:
    """A multiple, in place; by a number, or by one for each row or column."""
    made = mine if mine.dtype == np.float32 else None
    _store(mine, np.multiply(_wide(mine), np.float32(factor) if isinstance(factor, float) else factor, out=made))


@_QUIET
def rescale(mine: Array, scale: float, offset: float = 0.0) -> None:
    """(mine + offset) * scale - offset, in place, rounded once."""
    wide = mine.astype(np.float64)
    _store(mine, ((wide + offset) * scale - offset).astype(np.float32))


def _wide(numbers: Array) -> Array:
    """As float32."""
    if numbers.dtype != BFLOAT16:
        return numbers.astype(np.float32, copy=False)
    bits = numbers.view(np.uint16).astype(np.uint32)
    bits <<= np.uint32(16)
    return bits.view(np.float32)


def _store(mine: Array, wide: Array) -> None:
    """Rounds float32 to the type of where it goes; `wide` is used up."""
    if mine.dtype != BFLOAT16:
        if mine is not wide:
            mine[...] = wide
        return
    bits = wide.view(np.uint32)
    # Half of the last place, less one if the last bit is even: what is in the middle becomes even.
    up = bits >> np.uint32(16)
    up &= np.uint32(1)
    up += np.uint32(0x7FFF)
    bits += up
    bits >>= np.uint32(16)
    np.copyto(mine.view(np.uint16), bits, casting="unsafe")
