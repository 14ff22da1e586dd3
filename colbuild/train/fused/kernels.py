"""Calls the functions of `kernels.cpp` with torch's tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

import torch

from colbuild.train.fused.compiler import compiled_library

NAMES: Final[Mapping[torch.dtype, str]] = {torch.float32: "fp32", torch.bfloat16: "bf16"}
"""The types of numbers that there are functions for."""

_P, _L, _F, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
_BOTH: Final = {
    "rms_forward": (_P, _P, _P, _P, _L, _L, _F, _I),
    "rms_backward": (_P, _P, _P, _P, _P, _P, _L, _L, _I),
    "gated_forward": (_P, _P, _P, _L, _I),
    "gated_backward": (_P, _P, _P, _P, _P, _L, _I),
    "rotate": (_P, _P, _P, _P, _L, _L, _L, _L, _L, _I),
    "rotate_back": (_P, _P, _P, _P, _L, _L, _L, _L, _L, _I),
    "causal_softmax": (_P, _L, _L, _L, _L, _F, _I),
    "causal_softmax_backward": (_P, _P, _L, _L, _L, _L, _F, _I),
    "cosine_rows": (_P, _P, _P, _P, _L, _L, _L, _I),
}
_SIGNATURES: Final = {
    **{f"{name}_{suffix}": kinds for name, kinds in _BOTH.items() for suffix in NAMES.values()},
    "loss_rows_bf16": (_P, _P, _P, _P, _P, _L, _P, _L, _L, _F, _F, _F, _F, _P, _P, _I),
}


class Kernels:
    """The compiled functions. Tensors are contiguous and on the CPU; the callers see to that."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = {}
        for name, kinds in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = list(kinds), None
            self._functions[name] = function

    def call(self, name: str, dtype: torch.dtype, *arguments: torch.Tensor | float | None) -> None:
        """Calls a function for a type of numbers; it uses as many threads as torch does."""
        given = [one.data_ptr() if isinstance(one, torch.Tensor) else one for one in arguments]
        self._functions[f"{name}_{NAMES[dtype]}"](*given, torch.get_num_threads())


_ACTIVE: ContextVar[Kernels | None] = ContextVar("fused", default=None)


def is_fusing() -> bool:
    """Returns whether the caller is inside `fused`, and kernels are there."""
    return _ACTIVE.get() is not None


def kernels() -> Kernels:
    """The kernels; only where `fits` says that they are there."""
    found = _ACTIVE.get()
    assert found is not None
    return found


def fits(*tensors: torch.Tensor) -> bool:
    """Returns whether tensors can be given to kernels here: on a CPU, and of one type that there are functions for."""
    dtype = tensors[0].dtype
    alike = all(one.device.type == "cpu" and one.dtype == dtype for one in tensors)
    return is_fusing() and alike and dtype in NAMES


@contextmanager
def fused(cache: Path | None, *, wanted: bool = True) -> Iterator[bool]:
    """Within the block passes over memory are fused where they can be; yields whether they are.

    Args:
        cache: Where compiled code is kept for other processes; None: nowhere.
        wanted: Whether to do so at all.
    """
    library = compiled_library(cache) if wanted else None
    token = _ACTIVE.set(Kernels(library) if library is not None else None)
    try:
        yield library is not None
    finally:
        _ACTIVE.reset(token)
