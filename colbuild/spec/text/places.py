"""Places of values: every value of a family has a file and a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Path = tuple[str | int, ...]
"""A path inside the resolved family: ("anchors", 0, "recipe", "loss", "temperature")."""


@dataclass(frozen=True, order=True)
class Place:
    """A point in a file that a person wrote.

    Attributes:
        file: The file's path, relative to the project's root.
        line: Counted from 1.
        column: Counted in characters from 1.
        source: The text of that line, to show it.
        length: How many characters of it are meant.
    """

    file: str
    line: int
    column: int
    source: str = field(default="", compare=False, repr=False)
    length: int = field(default=1, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Places:
    """The place of each value of a resolved family; a built-in default has none.

    Attributes:
        known: Path in the resolved family -> place.
    """

    known: Mapping[Path, Place] = field(default_factory=dict, repr=False)

    def nearest(self, path: Path) -> Place | None:
        """The place of a value, or of the closest thing around it that somebody wrote; None for an empty family."""
        for end in range(len(path), -1, -1):
            place = self.known.get(path[:end])
            if place is not None:
                return place
        return None
