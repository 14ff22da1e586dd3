"""Renders chat templates as transformers does, on machines without transformers.

The rules are those of transformers 5: jinja2 in a sandbox, blocks trimmed, `break` and `continue`, the tag `generation`, the
functions `raise_exception` and `strftime_now`, `tojson` without escapes for HTML. A test compares the two on many templates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.arch.files.json_file import object_if_there
from colbuild.arch.files.model_files import CHAT_TEMPLATE, NAMED_TEMPLATES, SETTINGS
from colbuild.bounds import TEMPLATE_BYTES, TEMPLATE_MEMORY, TEMPLATE_SECONDS
from colbuild.confined import Bounds, Task, confined
from colbuild.documents import MalformedError, read_regular
from colbuild.errors import BuildError, short_text
from colbuild.export.runtime.template_sandbox import render

SPECIAL_TOKENS_MAP: Final = "special_tokens_map.json"
DEFAULT: Final = "default"

_TRIAL: Final = "Hello"
_BOUNDS: Final = Bounds(TEMPLATE_SECONDS, TEMPLATE_MEMORY)


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the special tokens that it may name."""

    source: str
    special: Mapping[str, str]

    def render(self, prompt: str) -> str:
        """A user's message as the text that the model continues with its answer.

        Raises:
            BuildError: The template is broken, or refuses the message.
        """
        message = {"role": "user", "content": prompt}
        try:
            given = {"messages": [message], "tools": None, "documents": None, "add_generation_prompt": True}
            return render(self.source, {**self.special, **given})
        except Exception as error:  # noqa: BLE001  (a template is a program, and may raise anything)
            raise BuildError(
                f"the package's chat template fails: {short_text(error)}", hint="run it without the template (--raw)"
            ) from None

    @property
    def works(self) -> bool:
        """Whether it takes a user's message, tried in a process of its own: a template may take all memory or never end."""
        given = {"source": self.source, "special": dict(self.special)}
        try:
            return list(confined(Task(__name__, "rendered", given, "the chat template"), _BOUNDS)) == [True]
        except BuildError:
            return False


def rendered(beat: Callable[[], None], source: str, special: dict[str, str]) -> Iterator[bool]:
    """In a process of its own: says that a template takes a message. Raises BuildError where it fails."""
    ChatTemplate(source, special).render(_TRIAL)
    yield True


def read_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a model folder or package that transformers would take; None if there is none.

    Files of their own go before tokenizer_config.json, where a template may be a text, or several with names, of which the one
    called "default" counts.
    """
    settings = object_if_there(folder / SETTINGS)
    named = _templates_of_files(folder) or _templates_of_settings(settings)
    source = named.get(DEFAULT)
    return ChatTemplate(source, _special_tokens(folder, settings)) if isinstance(source, str) and source else None


def _templates_of_files(folder: Path) -> dict[str, Any]:
    files = {path.stem: path for path in sorted((folder / NAMED_TEMPLATES).glob("*.jinja"))}
    if (folder / CHAT_TEMPLATE).is_file():
        files.setdefault(DEFAULT, folder / CHAT_TEMPLATE)
    return {name: _text(path) for name, path in files.items()}


def _templates_of_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = settings.get("chat_template")
    if isinstance(found, dict):
        return found
    if isinstance(found, list):
        named = [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        return {entry["name"]: entry.get("template") for entry in named}
    return {DEFAULT: found}


def _special_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Every special token that has a name of its own: `bos_token` and the like, and those that only this model has."""
    found = dict(settings)
    if "added_tokens_decoder" not in settings:
        # Where that lists the added tokens, the older file does not count.
        found |= object_if_there(folder / SPECIAL_TOKENS_MAP)
    for listed in ("extra_special_tokens", "model_specific_special_tokens"):
        more = found.pop(listed, None)
        found |= more if isinstance(more, dict) else {}
    contents = {name: token.get("content") if isinstance(token, dict) else token for name, token in found.items()}
    return {name: text for name, text in contents.items() if name.endswith("_token") and isinstance(text, str)}


def _text(path: Path) -> str:
    try:
        return read_regular(path, TEMPLATE_BYTES).decode("utf-8")
    except (OSError, MalformedError, UnicodeDecodeError) as error:
        raise BuildError(f"{path} cannot be read: {error}") from None
