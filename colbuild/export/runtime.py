"""Running a package on any machine with onnxruntime, tokenizers, numpy and jinja2: neither torch nor transformers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from tokenizers import Tokenizer

from colbuild.errors import BuildError
from colbuild.export.chat_template import ChatTemplate, read_template
from colbuild.export.manifest import Manifest, check_files, read_manifest
from colbuild.export.session import Decoder, Logits, generate_tokens, open_decoder
from colbuild.export.text import stream_text
from colbuild.train.beginning import text_ids
from colbuild.units import format_duration
from colbuild.weights.tokenizer_file import dropped_tokens, load_tokenizer, refuse_dropped


@dataclass(frozen=True)
class Package:
    """An open package.

    Attributes:
        folder: Where it lies.
        manifest: What it says about itself.
        decoder: Its graph, loaded.
        tokenizer: Its tokenizer.
        template: Its chat template, if it has one.
        beginning: The token that text begins with, if there is one.
        ends: Tokens that end an answer.
    """

    folder: Path
    manifest: Manifest
    decoder: Decoder
    tokenizer: Tokenizer
    template: ChatTemplate | None
    beginning: int | None
    ends: frozenset[int]


@dataclass
class Generation:
    """An answer on its way. The figures are final once `pieces` has been read to its end.

    Attributes:
        pieces: The answer's text, piece by piece.
        prompt_tokens: Length of the prompt.
        new_tokens: Tokens generated so far, a token that ended the answer not counted.
        prompt_seconds: Time to read the prompt.
        seconds: Time for the steps after it; the first token comes with the prompt.
        stopped: Why it ended: "end" of the answer, "max_tokens", or "context" full; empty until then.
        steps: How many tokens were computed in `seconds`.
        chat: Whether the prompt went through a chat template; else it is text that is continued.
    """

    pieces: Iterator[str]
    prompt_tokens: int
    chat: bool = False
    new_tokens: int = 0
    prompt_seconds: float = 0.0
    seconds: float = 0.0
    stopped: str = ""
    steps: int = 0

    def __iter__(self) -> Iterator[str]:
        """The answer's text, piece by piece."""
        return self.pieces

    @property
    def tokens_per_second(self) -> float:
        """Speed of generating, without reading the prompt; 0 when there was nothing to time."""
        return self.steps / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """The figures in one line."""
        parts = [
            f"{self.prompt_tokens:,} prompt tokens in {format_duration(self.prompt_seconds)}",
            f"{self.new_tokens:,} new tokens at {self.tokens_per_second:.1f}/s",
        ]
        endings = {"max_tokens": "stopped at the most tokens allowed", "context": "the package's context is full"}
        return " · ".join([*parts, *(text for reason, text in endings.items() if reason == self.stopped)])


def open_package(folder: Path, threads: int | None = None) -> Package:
    """Opens a package and loads its graph.

    Args:
        folder: The package.
        threads: Threads to compute with; all cores when None.

    Raises:
        BuildError: It is no package, a file is missing or not the package's own, or onnxruntime cannot load it.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    if not (folder / "tokenizer.json").is_file():
        raise BuildError(f"the package {folder} has no tokenizer.json, so it cannot be asked anything")
    settings = _settings(folder)
    ends = settings.get("eos_token_id")
    return Package(
        folder=folder,
        manifest=manifest,
        decoder=open_decoder(folder / manifest.graph.file, manifest.graph, threads),
        tokenizer=load_tokenizer(folder / "tokenizer.json", hint="copy or build the package again"),
        template=read_template(folder),
        beginning=settings.get("bos_token_id"),
        ends=frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends]),
    )


def _settings(folder: Path) -> dict[str, Any]:
    """config.json, overruled by generation_config.json where that says anything."""
    settings: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            read = json.loads((folder / name).read_text(encoding="utf-8"))
            settings.update({key: value for key, value in read.items() if value is not None})
    return settings


def generate(
    package: Package,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    chat: bool | None = None,
) -> Generation:
    """Answers a prompt; nothing is computed before the answer's pieces are asked for.

    Args:
        package: An open package.
        prompt: The user's message, or text to continue.
        max_tokens: The most tokens to generate.
        temperature: 0 takes the likeliest token each time; above, tokens are drawn.
        seed: Decides what is drawn.
        chat: False continues the prompt as plain text. Otherwise the chat template is used, where there is one.

    Raises:
        BuildError: The prompt is empty, fills the package's context or spells a token that the model does not have, or the
            chat template fails.
    """
    refuse_dropped([prompt], dropped_tokens(package.folder), "the prompt")
    template = package.template if chat is not False else None
    ids = _encode(package, prompt, template)
    context = package.manifest.profile.context
    if len(ids) >= context:
        raise BuildError(
            f"the prompt has {len(ids):,} tokens; this package takes {context:,} in all, prompt and answer together",
            hint="shorten the prompt, or build the package with a larger 'context'",
        )
    generation = Generation(pieces=iter(()), prompt_tokens=len(ids), chat=template is not None)
    chosen = _Choice(temperature, numpy.random.default_rng(seed))
    tokens = _tokens(package, ids, min(max_tokens, context - len(ids)), chosen, generation)
    generation.pieces = _finish(stream_text(package.tokenizer, tokens), generation, max_tokens)
    return generation


def _encode(package: Package, prompt: str, template: ChatTemplate | None) -> list[int]:
    if template is not None:
        # The template writes the special tokens itself.
        ids = package.tokenizer.encode(template.render(prompt), add_special_tokens=False).ids
    else:
        ids = text_ids(package.tokenizer, prompt)
    if not ids and package.beginning is not None:
        return [package.beginning]
    if not ids:
        raise BuildError("the prompt is empty", hint="give the model some text to continue")
    return list(ids)


@dataclass(frozen=True)
class _Choice:
    """How the next token is chosen."""

    temperature: float
    random: numpy.random.Generator

    def __call__(self, logits: Logits) -> int:
        """The next token, from logits [vocab]."""
        if self.temperature <= 0.0:
            return int(logits.argmax())
        # The largest of the scaled logits plus Gumbel noise is a draw from their softmax.
        return int((logits / self.temperature + self.random.gumbel(size=logits.shape)).argmax())


def _tokens(package: Package, ids: list[int], most: int, choose: _Choice, figures: Generation) -> Iterator[int]:
    """The answer's tokens up to its end; keeps the figures."""
    tokens = generate_tokens(package.decoder, ids, choose, most)
    for place in range(most):
        started = time.perf_counter()
        token = next(tokens)
        passed = time.perf_counter() - started
        if place == 0:
            figures.prompt_seconds = passed
        else:
            figures.seconds += passed
            figures.steps += 1
        if token in package.ends:
            figures.stopped = "end"
            return
        figures.new_tokens += 1
        yield token


def _finish(pieces: Iterator[str], figures: Generation, max_tokens: int) -> Iterator[str]:
    yield from pieces
    if not figures.stopped:
        figures.stopped = "max_tokens" if figures.new_tokens >= max_tokens else "context"
