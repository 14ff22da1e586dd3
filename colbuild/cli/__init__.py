"""The command line: typer commands and rich rendering, no logic."""


def main() -> None:
    """Runs the command line and exits with one of DESIGN's exit codes."""
    # Nothing is imported before: an interrupt would end the command with a traceback until `main` deals with it.
    from colbuild.cli.start import main

    main()


__all__ = ["main"]
