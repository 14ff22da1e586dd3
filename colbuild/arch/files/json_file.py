"""JSON files of a model: each must hold an object; a Git LFS pointer is reported as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from colbuild.documents import MalformedError, open_regular, read_json_file
from colbuild.errors import BuildError

LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


def read_object(path: Path, hint: str | None = None) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        path: The file.
        hint: What to do where it holds none.

    Raises:
        BuildError: The file is a Git LFS pointer, is damaged, too large or nested too deep, or holds something else.
    """
    refuse_pointer(path)
    try:
        value = read_json_file(path)
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror or error}", hint=hint) from None
    except MalformedError as error:
        raise BuildError(f"{path} cannot be read: {error}", hint=hint) from None
    if not isinstance(value, dict):
        raise BuildError(f"{path} cannot be read: it is not a JSON object", hint=hint)
    return value


def object_if_there(path: Path, hint: str | None = None) -> dict[str, Any]:
    """The same; empty if there is no such file.

    Raises:
        BuildError: As `read_object`.
    """
    return read_object(path, hint) if path.exists() else {}


def refuse_pointer(path: Path) -> None:
    """Raises BuildError if a file is a Git LFS pointer in place of its content."""
    try:
        with open_regular(path) as file:
            found = file.read(len(LFS_POINTER)) == LFS_POINTER
    except (OSError, MalformedError):
        return
    if found:
        raise BuildError(
            f"{path} is a Git LFS pointer: the file itself was not downloaded",
            hint=f"run 'git lfs pull' in {path.parent}, or download {path.name} from the model's page",
        )
