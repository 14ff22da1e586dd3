"""Which function carries out which operation; imported only when one has to run, since most of them need torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final

from colbuild.ops.step_run import StepRun

MODULES: Final[Mapping[str, str]] = {
    "source": "colbuild.ops.source.convert",
    "generate": "colbuild.ops.generate",
    "tokenizer": "colbuild.ops.tokenizer",
    "corpus": "colbuild.ops.corpus.build",
    "order": "colbuild.ops.order",
    "bridge": "colbuild.ops.bridge",
    "align": "colbuild.ops.align",
    "teach": "colbuild.ops.teach",
    "distill": "colbuild.ops.distill",
    "interpolate": "colbuild.ops.interpolate",
    "recover": "colbuild.ops.recover",
    "quantise": "colbuild.ops.quantise",
    "evaluate": "colbuild.ops.evaluate",
    "export": "colbuild.ops.export",
}


_NOT_FORKED: Final = frozenset({"export"})
"""onnxruntime starts threads when it is imported, and threads do not survive a fork: each such process imports it itself."""

_LIBRARIES: Final = ("mobius",)
"""What operations import when they run, and takes long."""


def import_before_fork() -> None:
    """Imports what steps need, once for all processes that are forked from this one."""
    for op, module in MODULES.items():
        if op not in _NOT_FORKED:
            import_module(module)
    for library in _LIBRARIES:
        import_module(library)


def operation(op: str) -> Callable[[StepRun], None]:
    """The function that fills a step's output."""
    run: Callable[[StepRun], None] = import_module(MODULES[op]).run
    return run
