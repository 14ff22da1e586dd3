"""Prints a family's last build and running builds, for `colbuild status`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from colbuild.report.screen.cache_view import ago
from colbuild.report.screen.naming import naming
from colbuild.units import format_duration

if TYPE_CHECKING:
    from colbuild.run.history.history import History, Run, RunningStep


def print_history(history: History, console: Console, now: float | None = None, spec: Path | None = None) -> None:
    """Prints a line for each running build, and one for the last of the others; commands in them name the `spec`."""
    moment = time.time() if now is None else now
    for run in history.running:
        console.print(_running(run, moment), soft_wrap=True)
    if history.last is not None:
        console.print(naming(_ended(history.last, moment), spec), soft_wrap=True)


def history_to_json(history: History) -> dict[str, Any]:
    """A family's builds as JSON values: "running", and "last" or null."""
    return {
        "running": [_run_to_json(run) for run in history.running],
        "last": None if history.last is None else _run_to_json(history.last),
    }


def _run_to_json(run: Run) -> dict[str, Any]:
    return {**asdict(run), "outcome": str(run.outcome), "ran": list(run.ran)}


def _running(run: Run, now: float) -> str:
    """running: distill a76, 41%, loss 3.91; 3 of 16 steps are done, since 1 h 5 min (process 4711)."""
    process = f" (process {run.pid})" if run.pid is not None else ""
    work = " | ".join(_step(step) for step in run.current) or "between two steps"
    since = format_duration(max(0.0, now - run.started))
    return f"running: {work}; {len(run.ran) + run.cached} of {run.steps} steps are done, since {since}{process}"


def _step(step: RunningStep) -> str:
    progress = step.progress
    parts = [step.step]
    if progress is not None and progress.total:
        parts.append(f"{100 * progress.done // progress.total}%")
    if progress is not None:
        parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in progress.metrics.items()]
    return ", ".join(parts)


def _ended(run: Run, now: float) -> str:
    ended = run.ended if run.ended is not None else run.started
    when, took = ago(now - ended), format_duration(max(0.0, ended - run.started))
    ran = f"{run.steps} steps, {len(run.ran)} ran, {took}"
    outcome = run.outcome.value
    if outcome == "done":
        return f"last build: {when}, {ran}"
    if outcome == "failed":
        # A step's message may be long; the first line says what is wrong.
        reasons = [f"{failed.step}: {_first_line(failed.message)}" for failed in run.failed]
        told = "; ".join(reasons) or _first_line(run.error or "no reason was recorded")
        return (
            f"last build: failed {when} at {told} ({ran})" if reasons else f"last build: failed {when}: {told} ({ran})"
        )
    during = f" during {' | '.join(_step(step) for step in run.current)}" if run.current else ""
    return f"last build: {outcome} {when}{during} ({ran}); 'colbuild build' continues from there"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
