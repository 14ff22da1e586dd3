"""Moves chat templates into separate files, so that a changed template does not change the tokenizer part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from colbuild.arch.files.model_files import CHAT_TEMPLATE, NAMED_TEMPLATES, SETTINGS
from colbuild.arch.files.tokenizer_file import read_settings
from colbuild.weights.files.checkpoint import write_json

KEY: Final = "chat_template"
"""Key of tokenizer_config.json under which older releases of transformers wrote the template."""

_DEFAULT: Final = "default"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def separate_chat(folder: Path) -> None:
    """Moves the chat templates in a folder's tokenizer_config.json into files, as transformers 5 writes them.

    Files that are there already stay: transformers takes them and passes over the settings. Templates whose names are no file
    names stay in the settings.
    """
    settings = read_settings(folder)
    if KEY not in settings:
        return
    if not (folder / CHAT_TEMPLATE).exists() and not (folder / NAMED_TEMPLATES).exists():
        named = _named(settings[KEY])
        if named is None:
            return
        for name, text in named.items():
            path = folder / CHAT_TEMPLATE if name == _DEFAULT else folder / NAMED_TEMPLATES / f"{name}.jinja"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.encode("utf-8"))
    write_json(folder / SETTINGS, {key: value for key, value in settings.items() if key != KEY})


def _named(found: Any) -> dict[str, str] | None:
    """Name -> template; None where it is none that files can hold."""
    if isinstance(found, str):
        return {_DEFAULT: found}
    if isinstance(found, list):
        if not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in found):
            return None
        found = {entry["name"]: entry.get("template") for entry in found}
    if not isinstance(found, Mapping):
        return None
    sound = all(
        isinstance(name, str) and _NAME.fullmatch(name) and isinstance(text, str) for name, text in found.items()
    )
    return dict(found) if sound else None
