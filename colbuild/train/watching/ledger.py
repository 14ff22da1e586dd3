"""The figures of a training for its record: work, time and losses; imports no torch.

None of it is part of a result: the same training takes other times elsewhere. Where the figures are shown, this module also
reads them back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from colbuild.process_memory import peak_bytes

if TYPE_CHECKING:
    import torch

BACKWARD: Final = 3
"""A forward and a backward pass take three times a forward one's FLOPs; recomputed activations are not counted."""

PEAK_FLOPS: Final[tuple[tuple[str, float], ...]] = (
    (r"H200 NVL", 835e12),
    (r"GH200|H200", 989e12),
    (r"H100 PCIe", 756e12),
    (r"H100 NVL", 835e12),
    (r"H100", 989e12),
    (r"A100", 312e12),
    (r"L40S", 362e12),
    (r"L4", 121e12),
    (r"RTX 4090(?! D| Laptop)", 165e12),
    (r"RTX 3090(?! Ti)", 71e12),
)
"""A GPU's name, as torch has it -> FLOP/s of dense bf16 matrix products with fp32 sums; the first that fits counts.

From NVIDIA's data sheets, which print twice as much where they assume structured sparsity; the RTX cards' from the white papers
of their architectures (Ada, appendix A; GA102, appendix A).
"""


@dataclass(frozen=True)
class Ledger:
    """The figures of one training.

    Attributes:
        tokens: How many the student learned from, those before an interruption included.
        teacher_flops: FLOPs of the teacher's forward passes; 0 where it was read from a cache.
        student_flops: FLOPs of the student's forward and backward passes, and of what it wrote.
        seconds: Spent in optimiser steps, in this run alone; measuring and checkpoints are apart.
        tokens_per_second: Over these seconds.
        mfu: FLOPs of the models per second, as a share of what the device can do; None where that is not known.
        peak_memory: Bytes: of a GPU the most that torch had allocated, else the most that the process had in memory.
        device: What it ran on: a GPU's name, or "cpu".
        final_loss: What the last step was trained on, in nats per token.
        heldout_loss: Cross-entropy with held-out text at the end, in nats per token; None if it was not measured.
        kl_to_teacher: KL(teacher || student) there.
        given_up: The cross-entropy that the training ended with, where that is worse than its start's, which is kept then: the
            two figures above are the start's. None where the end is kept.
    """

    tokens: int
    teacher_flops: int
    student_flops: int
    seconds: float
    tokens_per_second: float
    mfu: float | None
    peak_memory: int
    device: str
    final_loss: float
    heldout_loss: float | None = None
    kl_to_teacher: float | None = None
    given_up: float | None = None


_ADAPTER = TypeAdapter(Ledger)


def training_ledger(
    *,
    tokens: int,
    timed_tokens: int,
    seconds: float,
    teacher_forward: int,
    student_forward: float,
    device: torch.device,
    devices: int = 1,
    final_loss: float,
    heldout_loss: float | None = None,
    kl_to_teacher: float | None = None,
    given_up: float | None = None,
    writing: int = 0,
) -> Ledger:
    """The ledger of a training that has just ended in this process.

    Args:
        tokens: How many the student learned from.
        timed_tokens: How many of them in this run.
        seconds: How long these took.
        teacher_forward: FLOPs of the teacher's forward pass for a token (`colbuild.arch.forward_flops`); 0 if it was read from
            a cache.
        student_forward: The student's; of an elastic one, the mean over its tokens.
        device: Where this process computed.
        devices: How many like it worked together.
        final_loss: See `Ledger`.
        heldout_loss: See `Ledger`.
        kl_to_teacher: See `Ledger`.
        given_up: See `Ledger`.
        writing: FLOPs of what the student wrote.
    """
    name = device_name(device)
    speed = timed_tokens / seconds if seconds > 0 else 0.0
    peak = peak_flops(name)
    each = teacher_forward + BACKWARD * student_forward + writing / tokens
    mfu = None if peak is None else speed * each / (peak * devices)
    return Ledger(
        tokens=tokens,
        teacher_flops=tokens * teacher_forward,
        student_flops=round(BACKWARD * tokens * student_forward) + writing,
        seconds=round(seconds, 3),
        tokens_per_second=round(speed, 1),
        mfu=None if mfu is None else round(mfu, 4),
        peak_memory=peak_memory(device),
        device=name,
        final_loss=final_loss,
        heldout_loss=heldout_loss,
        kl_to_teacher=kl_to_teacher,
        given_up=given_up,
    )


def worsened_remark(start: float, end: float) -> str:
    """Returns the warning for a training whose start is kept, with the losses of its start and its end."""
    return (
        f"WARNING: the training made the model worse on held-out text, {start:.3f} to {end:.3f} nats per token: its initial "
        "weights are kept; lower optimizer.lr or raise tokens in the recipe"
    )


def device_name(device: torch.device) -> str:
    """A GPU's name as torch has it; of anything else its kind, such as "cpu"."""
    if device.type != "cuda":
        return device.type
    import torch

    return torch.cuda.get_device_name(device)


def peak_flops(name: str) -> float | None:
    """FLOP/s of dense bf16 matrix products of a device; None where nobody has looked it up, and for a part of a GPU."""
    if "MIG" in name:
        return None
    found = (peak for pattern, peak in PEAK_FLOPS if re.search(rf"\b({pattern})\b", name))
    return next(found, None)


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has had: allocated by torch on a GPU, else in main memory."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()


def ledger_to_json(ledger: Ledger) -> dict[str, Any]:
    """A ledger as JSON values, for `StepRun.note`."""
    return asdict(ledger)


def ledger_from_json(value: Mapping[str, Any]) -> Ledger | None:
    """The ledger behind what a step noted; None where it is another kind of step's, or an older colbuild's."""
    try:
        return _ADAPTER.validate_python(dict(value))
    except ValidationError:
        return None
