"""JSON files of a source, which hold an object or are refused; a file that git left as a pointer is named as such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colbuild.errors import BuildError
from colbuild.weights.headers import refuse_pointer


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
