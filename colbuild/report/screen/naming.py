"""Adds the family's file to the commands that messages and hints name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

DEFAULT_SPEC = Path("specs/family.yaml")

_COMMAND = re.compile(r"'colbuild (build|lock|plan|graph|status)((?: --?[a-z][a-z-]*)*)'")
"""A command as hints name it, which reads the default spec."""


def naming(text: str, spec: Path | None) -> str:
    """A text whose commands are about a spec: each names it, unless it is the default.

    Args:
        text: A message or a hint.
        spec: The family's file; None if a command was given none, or several.
    """
    if spec is None or os.path.relpath(spec) == str(DEFAULT_SPEC):
        return text
    path = os.path.relpath(spec)
    path = f'"{path}"' if " " in path else path
    return _COMMAND.sub(lambda found: f"'colbuild {found[1]} {path}{found[2]}'", text)


def named_spec(arguments: Sequence[str]) -> Path | None:
    """The family's file among a command's arguments, if there is exactly one."""
    named = [argument for argument in arguments if argument.endswith((".yaml", ".yml"))]
    return Path(named[0]) if len(named) == 1 else None
