"""JSON files of a source, which hold an object or are refused; a file that git left as a pointer is named as such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from colbuild.errors import BuildError

_POINTER: Final = b"version https://git-lfs.github.com/spec/"


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        BuildError: The file is a Git LFS pointer, cannot be read, or holds something else.
    """
    refuse_pointer(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BuildError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BuildError(f"{path} holds no JSON object")
    return value


def refuse_pointer(path: Path) -> None:
    """Raises BuildError if a file is a Git LFS pointer in place of its content."""
    try:
        with path.open("rb") as file:
            found = file.read(len(_POINTER)) == _POINTER
    except OSError:
        return
    if found:
        raise BuildError(
            f"{path} is a Git LFS pointer: the file itself was never downloaded",
            hint=f"run 'git lfs pull' in {path.parent}, or download {path.name} from the model's page",
        )
