"""Identifies projects: an id in the project's own `.colbuild` folder, which moves with the project.

The id is made by the first build and never changes. It tells a project that was moved, or is mounted elsewhere in a container,
from another one that lies where it was. It need not be unique: a copy of a project has the id of its original, so a project is
known by its id *and* the folder it was seen in.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

from colbuild.store.durable_files import checked, read_json, unchecked, write_json_durably

FOLDER: Final = ".colbuild"
"""Of a project: its store by default; where the store lies elsewhere, it holds the id alone."""

PROJECT_FILE: Final = "project.json"
_ID: Final = "project"


def project_id(project: Path) -> str:
    """The id of the project in a folder; empty if it has none, or it is damaged."""
    values = unchecked(read_json(project / FOLDER / PROJECT_FILE))
    found = values.get(_ID) if values is not None else None
    return found if isinstance(found, str) else ""


def make_project_id(project: Path) -> str:
    """The id of the project in a folder, made now if it has none; empty where it cannot be written."""
    found = project_id(project)
    if found:
        return found
    made, folder = uuid.uuid4().hex, project / FOLDER
    try:
        if not folder.exists():
            folder.mkdir()
            (folder / ".gitignore").write_text("*\n", encoding="ascii")
        write_json_durably(folder, folder / PROJECT_FILE, checked({_ID: made}))
    except OSError:
        # Such a project is known by its folder alone.
        return ""
    return made


def same_folder(first: Path, second: Path) -> bool:
    """Returns whether two paths lead to one folder that is there."""
    try:
        return first.samefile(second)
    except OSError:
        return False
