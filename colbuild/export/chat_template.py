"""Chat templates, rendered as transformers renders them, on machines that do not have it.

The rules are those of transformers 5: jinja2 in a sandbox, blocks trimmed, `break` and `continue`, the tag `generation`, the
functions `raise_exception` and `strftime_now`, `tojson` without escapes for HTML. A test compares the two on many templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from colbuild.errors import BuildError

TEMPLATE_FILE: Final = "chat_template.jinja"
NAMED_TEMPLATES: Final = "additional_chat_templates"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
SPECIAL_TOKENS_MAP: Final = "special_tokens_map.json"
DEFAULT: Final = "default"

_TRIAL: Final = "Hello"


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
            template = _environment().from_string(self.source)
            return template.render(
                messages=[message], tools=None, documents=None, add_generation_prompt=True, **self.special
            )
        except Exception as error:  # noqa: BLE001  (a template is a program, and may raise anything)
            raise BuildError(
                f"the package's chat template fails: {error}", hint="run it without the template (--raw)"
            ) from None

    @property
    def works(self) -> bool:
        """Whether it takes a user's message."""
        try:
            self.render(_TRIAL)
        except BuildError:
            return False
        return True


def read_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a model folder or package that transformers would take; None if there is none.

    Files of their own go before tokenizer_config.json, where a template may be a text, or several with names, of which the one
    called "default" counts.
    """
    settings = _read(folder / TOKENIZER_CONFIG)
    named = _templates_of_files(folder) or _templates_of_settings(settings)
    source = named.get(DEFAULT)
    return ChatTemplate(source, _special_tokens(folder, settings)) if isinstance(source, str) and source else None


def _templates_of_files(folder: Path) -> dict[str, Any]:
    files = {path.stem: path for path in sorted((folder / NAMED_TEMPLATES).glob("*.jinja"))}
    if (folder / TEMPLATE_FILE).is_file():
        files.setdefault(DEFAULT, folder / TEMPLATE_FILE)
    return {name: path.read_text(encoding="utf-8") for name, path in files.items()}


def _templates_of_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = settings.get("chat_template")
    if isinstance(found, dict):
        return found
    if isinstance(found, list):
        return {entry["name"]: entry.get("template") for entry in found if isinstance(entry, dict) and "name" in entry}
    return {DEFAULT: found}


def _special_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Every special token that has a name of its own: `bos_token` and the like, and those that only this model has."""
    found = dict(settings)
    if "added_tokens_decoder" not in settings:
        # Where that lists the added tokens, the older file does not count.
        found |= _read(folder / SPECIAL_TOKENS_MAP)
    for listed in ("extra_special_tokens", "model_specific_special_tokens"):
        more = found.pop(listed, None)
        found |= more if isinstance(more, dict) else {}
    contents = {name: token.get("content") if isinstance(token, dict) else token for name, token in found.items()}
    return {name: text for name, text in contents.items() if name.endswith("_token") and isinstance(text, str)}


def _read(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


# -- the environment --------------------------------------------------------------------------------------------------


class _Generation(Extension):
    """The tag that marks what the model has written, for trainings: here its content is text like any other."""

    tags = {"generation"}  # noqa: RUF012  (declared so by the base class)

    def parse(self, parser: Parser) -> nodes.Node:
        """What stands between the tag and its end; what is set in there is not known outside."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """A namespace that keeps no name with an underscore in front: such lead out of the sandbox."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # A template may write namespace(self=…).
        self, args = args[0], args[1:]
        values = dict(*args, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        """Sets a value."""
        _check_name(name)
        super().__setitem__(name, value)


class _Dictionaries:
    """`dict` for templates, without the rest of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """A dictionary."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """A dictionary with the same value for some keys."""
        return dict.fromkeys(*args)


def _environment() -> ImmutableSandboxedEnvironment:
    """Sandboxed, because a package may come from anywhere."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": _now,
        "dict": _Dictionaries(),
        "namespace": _Namespace,
    }
    return environment


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold the name {name!r}, which begins with '_'")


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
