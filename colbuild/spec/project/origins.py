"""Every value of a resolved family with its place: the output of `colbuild show --resolved`.

The text form is YAML, each value's origin in a comment beside it::

    anchors:
      - name: a100                  # specs/family.yaml:41
        recipe:
          tokens: 64000             # specs/family.yaml:37
          sequence: 256             # recipes/distill.yaml:5
          seed: 0                   # default
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from colbuild.spec.project.load import LoadedFamily
from colbuild.spec.text.places import Path, Place

DEFAULT: Final = "default"
"""What is said of a value that nobody wrote."""

_WIDEST: Final = 72
"""Origins line up at most here; a longer line has its origin right behind it."""

_PLAIN: Final = re.compile(r"[A-Za-z./][A-Za-z0-9_./:=@+-]*(?<!:)")
_RESERVED: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", ".nan", ".inf"})


@dataclass(frozen=True)
class Resolved:
    """A single value of a resolved family; a list of single values counts as one.

    Attributes:
        path: Where it stands in the family.
        value: A JSON value that is no mapping.
        place: Where it was written; None for a default.
    """

    path: Path
    value: Any
    place: Place | None

    @property
    def origin(self) -> str:
        """Its place as text: "recipes/distill.yaml:9" or "default"."""
        return str(self.place) if self.place else DEFAULT


@dataclass(frozen=True)
class Line:
    """A line of the text form: YAML, and the origin of its value, if it holds one."""

    text: str
    origin: str | None


def resolved_values(loaded: LoadedFamily) -> tuple[Resolved, ...]:
    """Every value of a family, in the order of its keys; an item's name comes first."""
    return tuple(_values((), _dumped(loaded), loaded.places.known))


def resolved_lines(loaded: LoadedFamily) -> tuple[Line, ...]:
    """The family as lines of YAML."""
    return tuple(_lines((), _dumped(loaded), loaded.places.known, ""))


def with_origins(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """The lines padded so that the origins behind them line up: (text, comment)."""
    lengths = [len(line.text) for line in lines if line.origin]
    width = max((length for length in lengths if length <= _WIDEST), default=0)
    return [(f"{line.text:<{width}}  ", f"# {line.origin}") if line.origin else (line.text, "") for line in lines]


def resolved_to_json(loaded: LoadedFamily) -> list[dict[str, Any]]:
    """Every value as JSON: its path as text and as keys, the value, and the file and line of its place or null."""
    return [
        {
            "path": path_text(found.path),
            "keys": list(found.path),
            "value": found.value,
            "file": found.place.file if found.place else None,
            "line": found.place.line if found.place else None,
        }
        for found in resolved_values(loaded)
    ]


def path_text(path: Path) -> str:
    """A path for reading: `anchors[0].recipe.loss.temperature`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def scalar_text(value: Any) -> str:
    """A value on one line, as YAML 1.1 and 1.2 both read it back."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(scalar_text(item) for item in value)}]"
    if isinstance(value, str):
        bare = _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
        return value if bare else _quoted(value)
    if isinstance(value, float):
        text = repr(value)
        # "1e-08" without a point is a text to YAML 1.1.
        return text if "." in text else text.replace("e", ".0e")
    return json.dumps(value)


def _quoted(text: str) -> str:
    """A text in double quotes. JSON's escapes are not YAML's: a pair of surrogates is two characters there."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _dumped(loaded: LoadedFamily) -> dict[str, Any]:
    """The family as JSON values."""
    dumped: dict[str, Any] = _name_first(loaded.family.model_dump(mode="json"))
    return dumped


def _name_first(value: Any) -> Any:
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: key not in ("name", "source"))
        return {key: _name_first(value[key]) for key in keys}
    return [_name_first(item) for item in value] if isinstance(value, list) else value


def _values(path: Path, value: Any, known: Mapping[Path, Place]) -> Iterator[Resolved]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _values((*path, key), inner, known)
    elif _nested(value):
        for index, inner in enumerate(value):
            yield from _values((*path, index), inner, known)
    else:
        yield Resolved(path, value, known.get(path))


def _lines(path: Path, value: Mapping[str, Any], known: Mapping[Path, Place], indent: str) -> Iterator[Line]:
    for key, inner in value.items():
        at = (*path, key)
        if isinstance(inner, Mapping) and inner:
            yield Line(f"{indent}{key}:", None)
            yield from _lines(at, inner, known, indent + "  ")
        elif _nested(inner):
            yield Line(f"{indent}{key}:", None)
            for index, item in enumerate(inner):
                first, *rest = _lines((*at, index), item, known, indent + "    ")
                yield Line(f"{indent}  - {first.text.lstrip()}", first.origin)
                yield from rest
        else:
            text = "{}" if isinstance(inner, Mapping) else scalar_text(inner)
            yield Line(f"{indent}{key}: {text}", Resolved(at, inner, known.get(at)).origin)


def _nested(value: Any) -> bool:
    """Returns whether a value is a list of mappings, which takes a line for each of their keys."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
