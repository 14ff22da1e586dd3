"""What every benchmark shares: the machine it ran on, its bars, its table and its JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final


@dataclass(frozen=True)
class Bar:
    """Something an issue asks for: `value` against `bar`, and whether it holds."""

    name: str
    value: float
    bar: float
    holds: bool


def at_most(name: str, value: float, bar: float) -> Bar:
    """A bar that holds when the value is not above it."""
    return Bar(name, round(value, 4), bar, value <= bar)


def at_least(name: str, value: float, bar: float) -> Bar:
    """A bar that holds when the value is not below it."""
    return Bar(name, round(value, 4), bar, value >= bar)


@dataclass(frozen=True)
class Result:
    """A benchmark's rows, all with the same keys, its bars, and notes: paragraphs that stand below the table."""

    rows: tuple[dict[str, Any], ...]
    bars: tuple[Bar, ...]
    notes: tuple[str, ...] = ()


def machine() -> dict[str, Any]:
    """The machine, in words that mean something elsewhere."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


_INSTRUCTIONS: Final = (
    *("amx_bf16", "amx_int8", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx512f", "avx_vnni", "avx2"),
    *("bf16", "i8mm", "sve"),
)
"""What decides how fast matrices are multiplied, as Linux calls it."""


def _instructions() -> list[str]:
    """Those of `_INSTRUCTIONS` that the processor has: processors of one name may differ in them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    told = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    there = set(told.partition(":")[2].split())
    return [name for name in _INSTRUCTIONS if name in there]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def run_benchmark(name: str, command: str, measure: Callable[[bool], Result], libraries: Sequence[str]) -> None:
    """Runs a benchmark from the command line: `--quick` and `--json FILE`; prints its table and bars."""
    arguments = _parser(command).parse_args()
    _tell(name, command, measure(arguments.quick), libraries, arguments)


def run_kept_benchmark(
    name: str, command: str, measure: Callable[[bool, Path], Result], libraries: Sequence[str]
) -> None:
    """The same for one that prepares much or runs long: with `--work FOLDER` it goes on from what is there."""
    parser = _parser(command)
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="keep what is prepared and finished, for the next run"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        # Absolute, since what runs in processes of their own runs in other folders.
        folder = (arguments.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(arguments.quick, folder)
    _tell(name, command, result, libraries, arguments)


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=command)
    parser.add_argument("--quick", action="store_true", help="a rougher answer in about two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    return parser


def _tell(name: str, command: str, result: Result, libraries: Sequence[str], arguments: argparse.Namespace) -> None:
    here = machine()
    print(f"{here['processor']} ({', '.join(here['instructions'])}), {here['cores']} cores")
    print(table(result.rows))
    for note in result.notes:
        print(note)
    for bar in result.bars:
        print(f"{'holds' if bar.holds else 'MISSED':7} {bar.name}: {bar.value:g} (bar {bar.bar:g})")
    if arguments.json:
        document = {
            "name": name,
            "command": command + (" --quick" if arguments.quick else ""),
            "date": time.strftime("%Y-%m-%d"),
            "machine": here,
            "versions": {library: importlib.metadata.version(library) for library in libraries},
            "rows": list(result.rows),
            "bars": [asdict(bar) for bar in result.bars],
        }
        if result.notes:
            document["notes"] = list(result.notes)
        arguments.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    if not rows:
        return "(no rows)"
    keys = list(rows[0])
    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(_cell(row[key]) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
