"""The origin of a family: the AnsNet's digest and licence, beside every model.

::

    origin.json       {"ansnet": "<sha256 of its model.safetensors>", "begin": ["<s>"], "license": "apache-2.0"}
    LICENSE, NOTICE   as the AnsNet has them, if it has any
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from colbuild.arch.files.json_file import read_object
from colbuild.documents import MalformedError, open_regular
from colbuild.errors import BuildError

ORIGIN: Final = "origin.json"


_HEADER: Final = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
_CARD: Final = 1 << 20
"""Bytes of a model card that are looked at: its header stands at its beginning."""
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
    """A model's; None where none was written.

    Raises:
        BuildError: The file is damaged.
    """
    path = folder / ORIGIN
    if not path.is_file():
        return None
    found = read_object(path)
    ansnet, named, begin = found.get("ansnet"), found.get("license"), found.get("begin", [])
    texts = isinstance(begin, list) and all(isinstance(one, str) for one in begin)
    if not isinstance(ansnet, str) or not isinstance(named, str | None) or not texts:
        raise BuildError(f"{path} cannot be read: it does not name the model's origin")
    return Origin(ansnet, named, tuple(begin))


def origin_json(origin: Origin) -> dict[str, object]:
    """The content of origin.json; `begin` is there only where texts begin with something."""
    return {key: value for key, value in asdict(origin).items() if key != "begin" or value}


def copy_files(names: Iterable[str], source: Path, folder: Path) -> None:
    """Copies those files of a model that it has; a name may be a pattern."""
    for name in names:
        for path in sorted(source.glob(name)):
            if path.is_file():
                target = folder / path.relative_to(source)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, target)


def card_license(folder: Path) -> str | None:
    """The licence that the header of a model card names, as hubs read it."""
    path = folder / "README.md"
    if not path.is_file():
        return None
    try:
        with open_regular(path) as file:
            card = file.read(_CARD).decode("utf-8", errors="replace")
    except (OSError, MalformedError):
        return None
    header = _HEADER.match(card)
    found = _LICENSE.search(header[1]) if header else None
    return found[1] if found else None
