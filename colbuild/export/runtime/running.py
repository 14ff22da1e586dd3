"""Runs a package with onnxruntime, tokenizers, numpy and jinja2, without torch and transformers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from tokenizers import Tokenizer

from colbuild.arch.files.json_file import object_if_there
from colbuild.arch.files.model_files import TOKENIZER
from colbuild.arch.files.tokenizer_file import dropped_tokens, load_tokenizer, refuse_dropped
from colbuild.errors import BuildError
from colbuild.export.manifest import AGAIN, Manifest, check_files, read_manifest
from colbuild.export.runtime.chat_template import ChatTemplate, read_template
from colbuild.export.runtime.generation import Generation
from colbuild.export.runtime.session import Decoder, Logits, generate_tokens, open_decoder
from colbuild.export.runtime.text import stream_text
from colbuild.train.corpus.text_beginning import text_ids


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


def open_package(folder: Path, threads: int | None = None, beat: Callable[[], None] = lambda: None) -> Package:
    """Opens a package and loads its graph, in this process: for one from anywhere see `colbuild.export.runtime.guard`.

    Args:
        folder: The package.
        threads: Threads to compute with; all cores when None.
        beat: Called when the graph is loaded, and after each call of it.

    Raises:
        BuildError: It is no package, a file is missing or not the package's own, or onnxruntime cannot load it.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    if not (folder / TOKENIZER).is_file():
        raise BuildError(f"the package {folder} has no tokenizer.json, so it cannot read a prompt")
    settings = _settings(folder)
    return Package(
        folder=folder,
        manifest=manifest,
        decoder=open_decoder(folder / manifest.graph.file, manifest.graph, threads, beat=beat),
        tokenizer=load_tokenizer(folder / TOKENIZER, hint=AGAIN),
        template=read_template(folder),
        beginning=next(iter(_special_ids(folder, settings, "bos_token_id")), None),
        ends=frozenset(_special_ids(folder, settings, "eos_token_id")),
    )


def _settings(folder: Path) -> dict[str, Any]:
    """config.json, overruled by generation_config.json where that says anything."""
    settings: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        settings |= {key: value for key, value in object_if_there(folder / name).items() if value is not None}
    return settings


def _special_ids(folder: Path, settings: dict[str, Any], key: str) -> list[int]:
    """The token ids of a setting that holds one or several.

    Raises:
        BuildError: It holds something else.
    """
    found = settings.get(key)
    listed = found if isinstance(found, list) else [] if found is None else [found]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in listed):
        raise BuildError(f"the package {folder} is damaged: '{key}' in its settings is not a token id", hint=AGAIN)
    return listed


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
        temperature: 0 takes the most likely token each time; above, tokens are drawn.
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
            f"the prompt has {len(ids):,} tokens; this package takes {context:,} for prompt and answer together",
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
    """The choice of the next token."""

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
