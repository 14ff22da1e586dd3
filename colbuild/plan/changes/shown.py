"""Values in sentences about what differs."""

from __future__ import annotations

from typing import Any, Final

_NOTHING: Final = "none"


def shown(value: Any) -> str:
    """A value as a difference shows it. A text that reads like no value at all (`begin: none`) stands in quotation marks."""
    if value is None:
        return _NOTHING
    return f"'{value}'" if value == _NOTHING else str(value)
