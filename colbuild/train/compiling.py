"""torch.compile where it pays off, with its own cache; eager computation if compiling fails.

A model's blocks are compiled one by one (regional compilation): all of them are the same code, which is compiled once, in a
fifth of the time that the whole model takes, and is as fast within a few per cent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import torch
from torch import nn

from colbuild.train.compiled_code import sound_cache

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

WORTH: Final = {"cpu": 1e14, "cuda": 4e16}
"""FLOPs of a training from which on compiling repays its time, by the kind of device; elsewhere it never does.

A CPU takes half a minute to compile what makes a training a fifth faster, and some 400 s for these FLOPs. For a GPU both are
guessed from its speed. Neither depends on what is in the cache: the same training is compiled, or not, every time.
"""

FUSING_WORTH: Final = 1e12
"""The same for fused passes on a CPU (`colbuild.train.fused`): they are compiled in two seconds, and these FLOPs take ten."""

_CACHE: Final = "TORCHINDUCTOR_CACHE_DIR"
_SHAPES: Final = 64
"""How many versions of one function may be compiled; torch's 8 are less than a teacher, a student and their parts need."""

_ACTIVE: ContextVar[bool] = ContextVar("compiling", default=False)


def worth_compiling(flops: int, device: torch.device) -> bool:
    """Returns whether a training of so many FLOPs is long enough to repay compiling."""
    return device.type in WORTH and flops >= WORTH[device.type]


def worth_fusing(flops: int, device: torch.device) -> bool:
    """Returns whether a training of so many FLOPs is long enough to repay compiling fused passes."""
    return device.type == "cpu" and flops >= FUSING_WORTH


def compiler_found(device: torch.device) -> bool:
    """Returns whether there is what torch.compile needs: for a CPU a C++ compiler, for a GPU Triton."""
    if device.type == "cuda":
        return bool(torch.utils._triton.has_triton())
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError, RuntimeError):
        return False
    return True


@contextmanager
def compiling(cache: Path | None) -> Iterator[None]:
    """Within the block `compile_blocks` and `compiled_or_eager` compile.

    Args:
        cache: Where compiled code is kept for other processes; None: in a temporary folder of the machine.
    """
    before = os.environ.get(_CACHE)
    if cache is not None:
        os.environ[_CACHE] = str(cache)
    token = _ACTIVE.set(True)
    try:
        # One thread: a step's process is forked and ended without ceremony, which a pool of compilers would outlive.
        with (
            sound_cache(cache) if cache is not None else nullcontext(),
            torch._dynamo.config.patch(suppress_errors=True, recompile_limit=_SHAPES),
            _one_thread(),
        ):
            yield
    finally:
        _ACTIVE.reset(token)
        if cache is not None:
            if before is None:
                del os.environ[_CACHE]
            else:
                os.environ[_CACHE] = before


def is_compiling() -> bool:
    """Returns whether the caller is inside `compiling`."""
    return _ACTIVE.get()


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Makes the blocks of a model compute in compiled code; hooks on them still run, outside of it."""
    for block in blocks:
        block.forward = torch.compile(block.forward)


def eagerly() -> Any:
    """A context in which what was compiled computes as it did before: for shapes that come too seldom to compile for."""
    return torch.compiler.set_stance("force_eager") if _ACTIVE.get() else nullcontext()


def compiled_or_eager(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function that is compiled inside `compiling`, and is itself outside of it or where compiling fails.

    It must be pure tensor code; each new shape or dtype of its arguments compiles it once more.
    """
    compiled: list[Callable[Arguments, Result]] = []

    @wraps(function)
    def either(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if not _ACTIVE.get():
            return function(*args, **kwargs)
        if not compiled:
            compiled.append(torch.compile(function))
        return compiled[0](*args, **kwargs)

    return either


def _one_thread() -> Any:
    from torch._inductor import config

    return config.patch(compile_threads=1)
