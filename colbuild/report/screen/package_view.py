"""Prints the result of checking a package, and its speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from colbuild.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console

    from colbuild.export.package.verify import Verified
    from colbuild.export.runtime.bench import Speed

VERIFY_FORMAT: Final = "colbuild.verify.v1"


def print_verified(found: Verified, console: Console) -> None:
    """Prints what checking a package found, but for its problems, which are errors."""
    for remark in found.remarks:
        console.print(remark, style="dim", soft_wrap=True, highlight=False)
    if not found.problems:
        wanted = len(found.manifest.sample.tokens)
        console.print(
            f"{found.package} is sound: {found.files} files, {format_bytes(found.size)}, digests as in the manifest, "
            f"{found.tokens} of {wanted} sample tokens the same.",
            soft_wrap=True,
            highlight=False,
        )


def verified_to_json(found: Verified) -> dict[str, Any]:
    """Returns the result of checking a package as JSON values."""
    return {
        "format": VERIFY_FORMAT,
        "package": str(found.package),
        "sound": not found.problems,
        "files": found.files,
        "bytes": found.size,
        "tokens": found.tokens,
        "problems": list(found.problems),
        "remarks": list(found.remarks),
    }


def print_speeds(found: Sequence[Speed], console: Console) -> None:
    """Prints how fast a package is, a row for each number of threads."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("threads", "load", "prefill tokens/s", "decode tokens/s", "peak memory"):
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(
            str(one.threads),
            f"{one.load_seconds:.2f} s",
            f"{one.prefill_tps:,.1f}",
            f"{one.decode_tps:,.1f}",
            format_bytes(one.peak_memory),
        )
    console.print(table)
