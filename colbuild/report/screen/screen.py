"""The console of tables, messages and bars."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from colbuild.report.screen.printed import shown

_LOG_WIDTH: Final = 120


class Screen(Console):
    """Takes every text as it is: no markup, no emoji names, and control characters are shown, not obeyed."""

    def __init__(self, *, stderr: bool = False) -> None:
        stream = sys.stderr if stderr else None
        # The terminal's own sequences must come through: see `colbuild.report.screen.streams.Messages`.
        super().__init__(
            stderr=stderr, file=getattr(stream, "unescaped", None), highlight=False, emoji=False, markup=False
        )

    def render_str(self, text: str, **options: Any) -> Text:
        """A string, escaped before it is measured."""
        return super().render_str(shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever else holds text, when it is laid out."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                text = shown(segment.text)
                yield segment if text == segment.text else Segment(text, segment.style)


def open_console(*, stderr: bool = False) -> Console:
    """A console for standard output, or standard error."""
    console = Screen(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        # A log has no width; tables are not to be cut at rich's guess of 80.
        console.width = _LOG_WIDTH
    return console


def as_text(show: Callable[[Console], None]) -> str:
    """Returns the output of a printing function as text without colours."""
    console = Screen()
    console.width, console.no_color = _LOG_WIDTH, True
    with console.capture() as captured:
        show(console)
    return captured.get()
