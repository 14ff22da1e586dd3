"""Runs a package from outside in a separate process, with limits of time and memory that depend on its size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from colbuild.bounds import PACKAGE_BYTES_A_SECOND, PACKAGE_MEMORY, PACKAGE_SECONDS
from colbuild.confined import Bounds, Task, confined
from colbuild.export.manifest import AGAIN, Manifest
from colbuild.export.runtime.generation import Generation

_TIMES: Final = 4
"""How often a model may lie in memory: as a file, as onnxruntime reads it, and as its kernels want it; and half of it again."""
_DISK_BLOCK: Final = 512


def try_package(folder: Path, manifest: Manifest, function: str, *, forked: bool = True, **given: Any) -> Iterator[Any]:
    """Yields the values of a function of `colbuild.export.runtime.trial` for a package.

    Args:
        folder: The package, whose files were compared with its manifest.
        manifest: Its manifest.
        function: The function's name.
        forked: As of `confined`.
        given: The function's further arguments.

    Raises:
        BuildError: The package cannot be used, takes too long or needs too much memory.
    """
    about = f"the package {folder}"
    task = Task("colbuild.export.runtime.trial", function, {"folder": str(folder), **given}, about, AGAIN)
    return confined(task, _bounds(folder, manifest), forked=forked)


def _bounds(folder: Path, manifest: Manifest) -> Bounds:
    """By what the model's files have on the disk: one with holes in it may be called any size."""
    size = 0
    for file in manifest.files:
        if file.path.startswith(manifest.graph.file):
            size += min(file.size, (folder / file.path).stat().st_blocks * _DISK_BLOCK)
    return Bounds(PACKAGE_SECONDS + size / PACKAGE_BYTES_A_SECOND, PACKAGE_MEMORY + _TIMES * size)


def answer_package(
    folder: Path, manifest: Manifest, prompt: str, *, threads: int | None = None, **asked: Any
) -> Generation:
    """Answers a prompt in a process of its own.

    Args:
        folder: The package.
        manifest: Its manifest.
        prompt: The user's message, or text to continue.
        threads: Threads to compute with; all cores when None.
        asked: As of `colbuild.export.runtime.running.generate`.

    Raises:
        BuildError: As of `generate` and of `try_package`; while the answer's pieces are asked for, too.
    """
    told = try_package(folder, manifest, "answered", threads=threads, prompt=prompt, **asked)
    generation = Generation(iter(()), **next(told))
    generation.pieces = _pieces(told, generation)
    return generation


def _pieces(told: Iterator[dict[str, Any]], generation: Generation) -> Iterator[str]:
    for one in told:
        piece = one.pop("piece", None)
        generation.take(one)
        if piece is not None:
            yield piece
