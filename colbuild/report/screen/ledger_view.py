"""Prints the figures of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from colbuild.plan.shapes.bridge_shape import BRIDGE
from colbuild.train.watching.ledger import Ledger, ledger_from_json, worsened_remark
from colbuild.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from rich.console import Console

    from colbuild.run.building.family_rows import Row

_NONE = "–"


def told_ledger(noted: Mapping[str, Any]) -> str:
    """Returns the figures of a step: "702 tokens/s, 5.2 GB of memory, KL 0.310 to its teacher"; empty if it is no training."""
    ledger = ledger_from_json(noted)
    if ledger is None:
        return ""
    parts = [f"{_speed(ledger)} tokens/s", f"{format_bytes(ledger.peak_memory)} of memory"]
    if ledger.mfu is not None:
        parts.append(f"MFU {ledger.mfu:.0%}")
    if ledger.kl_to_teacher is not None:
        parts.append(f"KL {ledger.kl_to_teacher:.3f} to its teacher")
    if ledger.given_up is not None:
        parts.append("its initial weights were kept")
    return ", ".join(parts)


def reference(rows: Sequence[Row]) -> str:
    """Returns the model of token-level comparisons: the AnsNet, or a bridge with another vocabulary."""
    return "the bridge" if any(row.reference == BRIDGE for row in rows) else "the AnsNet"


def print_trainings(rows: Sequence[Row], console: Console) -> None:
    """Prints how far each trained model is from its teacher and from the AnsNet, and what training it took; if any is told."""
    from rich.table import Table

    # A DesNet that equals an anchor was made by the anchor's training.
    trained = [(row, row.ledger) for row in rows if row.ledger is not None and not row.origin.startswith("= ")]
    if not trained:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("trained", no_wrap=True)
    table.add_column("made from", no_wrap=True)
    for name in (
        "KL to teacher",
        f"to {reference(rows).removeprefix('the ')}",
        "tokens",
        "FLOPs",
        "time",
        "tokens/s",
        "MFU",
        "memory",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row, ledger in trained:
        table.add_row(
            row.name,
            row.origin,
            _NONE if ledger.kl_to_teacher is None else f"{ledger.kl_to_teacher:.3f}",
            _NONE if row.kl is None else f"{row.kl:.3f}",
            format_count(ledger.tokens),
            f"{ledger.teacher_flops + ledger.student_flops:.1e}",
            format_duration(ledger.seconds),
            _speed(ledger),
            _NONE if ledger.mfu is None else f"{ledger.mfu:.0%}",
            format_bytes(ledger.peak_memory),
        )
    console.print()
    console.print(table)
    for row, ledger in trained:
        if ledger.given_up is not None and ledger.heldout_loss is not None:
            console.print(f"{row.name}: {worsened_remark(ledger.heldout_loss, ledger.given_up)}", soft_wrap=True)
    console.print()


def _speed(ledger: Ledger) -> str:
    return format_count(round(ledger.tokens_per_second))
