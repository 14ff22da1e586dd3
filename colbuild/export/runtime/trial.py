"""The work of a package's own process; the commands `verify`, `run` and `bench` load no graph and no tokenizer.

Each function is the work of a `colbuild.confined.Task`, started by `colbuild.export.runtime.guard`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy
import psutil

from colbuild.arch.files.model_files import TOKENIZER
from colbuild.arch.files.tokenizer_file import load_tokenizer
from colbuild.errors import BuildError
from colbuild.export.manifest import read_manifest
from colbuild.export.runtime.running import generate, open_package
from colbuild.export.runtime.session import PROMPT_PIECE, Logits, generate_tokens, open_decoder
from colbuild.process_memory import peak_bytes
from colbuild.train.corpus.text_beginning import beginning

_SEED: Final = 20_260_102

Beat = Callable[[], None]


def sampled(beat: Beat, folder: str) -> Iterator[list[float]]:
    """Yields the lead of the most likely token over each token of the manifest's sample; 0 if they are the same."""
    manifest = read_manifest(Path(folder))
    sample, graph = manifest.sample, manifest.graph
    decoder = open_decoder(Path(folder) / graph.file, graph, threads=1, beat=beat)
    if max(sample.tokens, default=0) >= decoder.vocab:
        raise BuildError(f"the manifest's sample has a token beyond the {decoder.vocab:,} of the graph")
    leads: list[float] = []

    def choose(logits: Logits) -> int:
        wanted = sample.tokens[len(leads)]
        leads.append(float(logits[int(logits.argmax())] - logits[wanted]))
        return wanted

    # The manifest's own tokens are fed on, so that one that differs does not make all after it differ.
    for _ in generate_tokens(decoder, sample.prompt, choose, len(sample.tokens)):
        pass
    yield leads


def answered(beat: Beat, folder: str, threads: int | None, **asked: Any) -> Iterator[dict[str, Any]]:
    """An answer's pieces with the figures so far; the figures alone before the first piece and after the last."""
    generation = generate(open_package(Path(folder), threads, beat), **asked)
    yield generation.figures()
    for piece in generation.pieces:
        yield {"piece": piece, **generation.figures()}
    yield generation.figures()


def measured(beat: Beat, folder: str, threads: int | None, prompt: int, new: int) -> Iterator[dict[str, Any]]:
    """The fields of a `colbuild.export.runtime.bench.Speed`."""
    manifest = read_manifest(Path(folder))
    # What is in memory now, not the most that ever was: importing takes more for a moment.
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    decoder = open_decoder(Path(folder) / manifest.graph.file, manifest.graph, threads, beat=beat)
    loaded = time.perf_counter() - started
    drawn = numpy.random.default_rng(_SEED).integers(0, decoder.vocab, prompt).tolist()
    ids = [*_beginning(Path(folder)), *drawn][:prompt]
    times = []

    def choose(logits: Logits) -> int:
        times.append(time.perf_counter())
        return int(logits.argmax())

    # Once to warm up; a prompt is read in pieces, so more than one piece says no more.
    for _ in generate_tokens(decoder, ids[:PROMPT_PIECE], choose, 2):
        pass
    times.clear()
    started = time.perf_counter()
    for _ in generate_tokens(decoder, ids, choose, new + 1):
        pass
    yield {
        "threads": threads,
        "load_seconds": round(loaded, 4),
        "prefill_tps": round(prompt / (times[0] - started), 2),
        "decode_tps": round(new / max(times[-1] - times[0], 1e-9), 2),
        "peak_memory": max(0, peak_bytes() - before),
        "prompt_tokens": prompt,
        "new_tokens": new,
    }


def _beginning(folder: Path) -> tuple[int, ...]:
    """Token ids that a package's texts begin with."""
    path = folder / TOKENIZER
    return beginning(load_tokenizer(path)) if path.is_file() else ()
