"""Records that an older version of colbuild wrote: read under the keys that they have now, and written down once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from colbuild.store.durable_files import write_json, write_json_durably
from colbuild.store.layout import Layout
from colbuild.store.records import ActionRecord, record_to_json


@dataclass(frozen=True, eq=False)
class OlderRecords:
    """The records of a store that an older version wrote.

    Attributes:
        layout: Of the store.
        read: Reads them, by the keys that they have now.
    """

    layout: Layout
    read: Callable[[], Mapping[str, ActionRecord]]
    _known: list[Mapping[str, ActionRecord]] = field(default_factory=list)

    def records(self) -> Mapping[str, ActionRecord]:
        """Returns them by key; nothing once they are written down."""
        if self.layout.translated.exists():
            return {}
        if not self._known:
            self._known.append(self.read())
        return self._known[0]

    def write_down(self) -> None:
        """Writes them under their keys, once for a store. Raises OSError."""
        if self.layout.translated.exists():
            return
        found = self.records()
        for key, record in found.items():
            if not self.layout.action(key).exists():
                write_json(self.layout.folder("tmp"), self.layout.action(key), record_to_json(record))
        if found:
            # The mark must not outlive them: what they name took hours to make.
            os.sync()
        write_json_durably(self.layout.folder("tmp"), self.layout.translated, {"parts": True})
