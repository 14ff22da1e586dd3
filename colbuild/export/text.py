"""From text to token ids and back: the chat template, and decoding while tokens still come."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from colbuild.errors import BuildError

TEMPLATE_FILE: Final = "chat_template.jinja"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
SPECIAL_TOKENS: Final = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
REPLACEMENT: Final = "\ufffd"
"""What a decoder writes for bytes that are no character, or not one yet."""


@dataclass(frozen=True)
class ChatTemplate:
    """A package's chat template with the special tokens that it may name."""

    source: str
    special: dict[str, str]

    def render(self, prompt: str) -> str:
        """A user's message as the text that the model continues with its answer.

        Raises:
            BuildError: The template is broken, or refuses the message.
        """
        # As in transformers, whose templates these are; sandboxed, because a package may come from anywhere.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = _to_json
        try:
            template = environment.from_string(self.source)
            return template.render(
                messages=[{"role": "user", "content": prompt}], add_generation_prompt=True, **self.special
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise BuildError(
                f"the package's chat template fails: {error}", hint="run it without the template (--raw)"
            ) from None


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def read_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a model folder or package, from the file of its own or from tokenizer_config.json."""
    settings: dict[str, Any] = {}
    if (folder / TOKENIZER_CONFIG).is_file():
        settings = json.loads((folder / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    if (folder / TEMPLATE_FILE).is_file():
        source: Any = (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    else:
        source = settings.get("chat_template")
    if isinstance(source, list):
        source = next((entry["template"] for entry in source if entry.get("name") == "default"), None)
    if not source:
        return None
    found = {name: settings.get(name) for name in SPECIAL_TOKENS}
    special = {name: token["content"] if isinstance(token, dict) else token for name, token in found.items() if token}
    return ChatTemplate(source, special)


def stream_text(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """Decodes tokens as they come; the pieces joined are the text of all of them together.

    A token may be a part of a character only, so text is held back until it no longer ends within one. Each piece is
    decoded together with the one before it, because decoders treat the first token of a text in a way of their own.
    """
    ids: list[int] = []
    before, told = 0, 0
    for token in tokens:
        ids.append(token)
        known = tokenizer.decode(ids[before:told])
        text = tokenizer.decode(ids[before:])
        if len(text) > len(known) and not text.endswith(REPLACEMENT):
            yield text[len(known) :]
            before, told = told, len(ids)
    rest = tokenizer.decode(ids[before:])[len(tokenizer.decode(ids[before:told])) :]
    if rest:
        yield rest
