"""How fast a package is on this machine, and how much memory it takes: measured in a process of its own.

`python -m colbuild.export.bench FOLDER THREADS PROMPT NEW` is that process; it prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy
import psutil

from colbuild.errors import BuildError
from colbuild.export.manifest import check_files, read_manifest
from colbuild.export.session import PROMPT_PIECE, generate_tokens, open_decoder
from colbuild.train.beginning import beginning
from colbuild.train.peak import peak_bytes
from colbuild.weights.tokenizer_file import load_tokenizer

PROMPT_TOKENS: Final = 256
NEW_TOKENS: Final = 64
TOKENIZER: Final = "tokenizer.json"
_SEED: Final = 20_260_102


@dataclass(frozen=True)
class Speed:
    """What running a package costs.

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
    return tuple(_measured(folder, count, prompt, new) for count in threads)


def _measured(folder: Path, threads: int | None, prompt: int, new: int) -> Speed:
    arguments = [sys.executable, "-m", "colbuild.export.bench", str(folder), str(threads or 0), str(prompt), str(new)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise BuildError(f"the package {folder} cannot be run: {said}")
    return Speed(**json.loads(done.stdout.splitlines()[-1]))


def _measure(folder: Path, threads: int | None, prompt: int, new: int) -> Speed:
    manifest = read_manifest(folder)
    # What is in memory now, not the most that ever was: importing takes more for a moment.
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    decoder = open_decoder(folder / manifest.graph.file, manifest.graph, threads)
    loaded = time.perf_counter() - started
    drawn = numpy.random.default_rng(_SEED).integers(0, manifest.model.shape["vocab"], prompt).tolist()
    ids = [*_beginning(folder), *drawn][:prompt]
    times = []

    def choose(logits: numpy.typing.NDArray[numpy.float32]) -> int:
        times.append(time.perf_counter())
        return int(logits.argmax())

    # Once to warm up; a prompt is read in pieces, so more than one piece says no more.
    for _ in generate_tokens(decoder, ids[:PROMPT_PIECE], choose, 2):
        pass
    times.clear()
    started = time.perf_counter()
    for _ in generate_tokens(decoder, ids, choose, new + 1):
        pass
    return Speed(
        threads=threads,
        load_seconds=round(loaded, 4),
        prefill_tps=round(prompt / (times[0] - started), 2),
        decode_tps=round(new / max(times[-1] - times[0], 1e-9), 2),
        peak_memory=max(0, peak_bytes() - before),
        prompt_tokens=prompt,
        new_tokens=new,
    )


def _beginning(folder: Path) -> tuple[int, ...]:
    """Token ids that a package's texts begin with."""
    path = folder / TOKENIZER
    return beginning(load_tokenizer(path)) if path.is_file() else ()


if __name__ == "__main__":
    where, *numbers = sys.argv[1:]
    count, length, wanted = (int(number) for number in numbers)
    try:
        print(json.dumps(asdict(_measure(Path(where), count or None, length, wanted))))  # noqa: T201
    except BuildError as mistake:
        sys.exit(mistake.message)
