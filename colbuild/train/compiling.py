"""torch.compile where it pays: inside `compiling`, with a cache of its own, and eagerly wherever compiling fails."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_ACTIVE: ContextVar[bool] = ContextVar("compiling", default=False)


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
