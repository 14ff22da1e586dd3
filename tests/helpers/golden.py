"""Output compared with a committed file. `COLBUILD_GOLDEN=write` writes the files anew."""

from __future__ import annotations

import os
from pathlib import Path


def check_file(path: Path, text: str) -> None:
    """Compares a text with a golden file; spaces at the ends of lines do not count."""
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if os.environ.get("COLBUILD_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
