"""The command line: typer commands and rich rendering, no logic."""

from __future__ import annotations

from colbuild.cli.app import main

__all__ = ["main"]
