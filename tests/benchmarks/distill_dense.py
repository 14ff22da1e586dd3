"""The distillation loop that everybody writes first: whole logits, autocast, one backward pass.

As good as it gets without further thought: the teacher is in bf16, the optimiser fused, and the logarithms serve both losses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.benchmarks.distill_clock import Clock, job

if TYPE_CHECKING:
    import torch


def dense_loss(student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """0.6 of KL(teacher || student) and 0.4 of cross-entropy, logits [rows, tokens, vocabulary]; the mean over tokens."""
    from torch.nn import functional

    log_student = functional.log_softmax(student.float(), dim=-1).flatten(0, 1)
    log_teacher = functional.log_softmax(teacher.float(), dim=-1).flatten(0, 1)
    divergence = functional.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")
    return 0.6 * divergence + 0.4 * functional.nll_loss(log_student, targets.flatten())


def main(asked: dict[str, Any]) -> None:
    """Trains for some steps."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    device = torch.device(asked["device"])
    student = AutoModelForCausalLM.from_pretrained(asked["student"], dtype=torch.float32).to(device).train()
    teacher = AutoModelForCausalLM.from_pretrained(asked["teacher"], dtype=torch.bfloat16).to(device).eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    text = torch.from_numpy(np.load(asked["text"]))[:, : asked["sequence"] + 1]
    clock = Clock()
    for step in range(asked["steps"]):
        rows = (torch.arange(asked["batch"]) + step * asked["batch"]) % len(text)
        batch = text[rows].to(device)
        tokens, targets = batch[:, :-1], batch[:, 1:]
        with torch.no_grad():
            theirs = teacher(tokens, use_cache=False).logits
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = dense_loss(student(tokens, use_cache=False).logits, theirs, targets)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.step(loss.item())
    clock.tell(torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None)


if __name__ == "__main__":
    main(job())
