"""Where a family comes from: the AnsNet's digest and licence, beside every model that is made of it.

::

    origin.json       {"ansnet": "<sha256 of its model.safetensors>", "begin": ["<s>"], "license": "apache-2.0"}
    LICENSE, NOTICE   as the AnsNet has them, if it has any
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

ORIGIN: Final = "origin.json"
LICENCES: Final = (
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "LICENCE",
    "LICENCE.md",
    "LICENCE.txt",
    "NOTICE",
    "NOTICE.md",
    "NOTICE.txt",
    "USE_POLICY.md",
)
"""Files in which a model's licence may stand, and what it asks to be handed on with it."""

_HEADER: Final = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
_LICENSE: Final = re.compile(r"^license:\s*[\"']?([A-Za-z0-9][A-Za-z0-9.+_-]*)", re.MULTILINE)


@dataclass(frozen=True)
class Origin:
    """The AnsNet of a family.

    Attributes:
        ansnet: sha256 of its model.safetensors.
        license: What its licence is called, where it says so: apache-2.0.
        begin: The tokens that the tokenizer beside it puts in front of every text.
    """

    ansnet: str
    license: str | None
    begin: tuple[str, ...] = ()


def read_origin(folder: Path) -> Origin | None:
    """A model's; None where none was written."""
    path = folder / ORIGIN
    return Origin(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def origin_json(origin: Origin) -> dict[str, object]:
    """The content of origin.json; `begin` is there only where texts begin with something."""
    return {key: value for key, value in asdict(origin).items() if key != "begin" or value}


def copy_files(names: Iterable[str], source: Path, folder: Path) -> None:
    """Copies those files of a model that it has."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def card_license(folder: Path) -> str | None:
    """The licence that the header of a model card names, as hubs read it."""
    path = folder / "README.md"
    if not path.is_file():
        return None
    header = _HEADER.match(path.read_text(encoding="utf-8", errors="replace"))
    found = _LICENSE.search(header[1]) if header else None
    return found[1] if found else None
