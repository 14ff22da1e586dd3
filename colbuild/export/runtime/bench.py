"""Measures the speed and memory of a package on this machine, in a separate process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colbuild.export.manifest import Manifest, check_files, read_manifest
from colbuild.export.runtime.guard import try_package

PROMPT_TOKENS: Final = 256
NEW_TOKENS: Final = 64


@dataclass(frozen=True)
class Speed:
    """The speed and memory of a running package.

    Attributes:
        threads: Threads that computed; None: all cores.
        load_seconds: To open the graph.
        prefill_tps: Tokens of a prompt read in a second.
        decode_tps: Tokens generated in a second after it.
        peak_memory: Bytes that opening and running it added to the process at most.
        prompt_tokens: Length of the prompt.
        new_tokens: How many were generated.
    """

    threads: int | None
    load_seconds: float
    prefill_tps: float
    decode_tps: float
    peak_memory: int
    prompt_tokens: int
    new_tokens: int


def bench_package(
    folder: Path, threads: Sequence[int | None], prompt_tokens: int = PROMPT_TOKENS, new_tokens: int = NEW_TOKENS
) -> tuple[Speed, ...]:
    """Measures a package with each of these numbers of threads, one after the other.

    Raises:
        BuildError: It is no package, or it cannot be run.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    context = manifest.profile.context
    new = max(1, min(new_tokens, context // 2))
    prompt = max(1, min(prompt_tokens, context - new))
    return tuple(_measured(folder, manifest, count, prompt, new) for count in threads)


def _measured(folder: Path, manifest: Manifest, threads: int | None, prompt: int, new: int) -> Speed:
    # Not a fork, which would begin with this process's memory.
    [speed] = try_package(folder, manifest, "measured", forked=False, threads=threads, prompt=prompt, new=new)
    return Speed(**speed)
