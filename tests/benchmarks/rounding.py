"""What 4 bits cost SmolLM2-135M-Instruct, by what its rounding is fitted to.

`python -m tests.benchmarks.rounding [--quick] [--work FOLDER] [--json FILE]`. Every matrix of the blocks is rounded
to 4 bits in blocks of 32, embedding and head are left as they are, and PyTorch computes in float32 on held-out text.
"nearest" rounds each weight to its nearest step; the others are GPTQ on calibration text: with every token alike, or
weighted by its gradients as colbuild does, and with more or less of the identity mixed into the second moments
(shrinkage). "down" rounds the down projections alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from colbuild.export.rounding import matrix_statistics as statistics
from colbuild.export.rounding.block_rounding import inputs_of, round_blocks
from colbuild.export.rounding.matrix_statistics import SHRINKAGE, Seen, gather, seen_by
from colbuild.ops.shared.running_models import calibration, heldout_windows, model_of
from colbuild.progress import silent
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.benchmarks.harness import Result, at_most, run_kept_benchmark
from tests.benchmarks.packages_models import ansnet

COMMAND = "python -m tests.benchmarks.rounding"
HELDOUT = 4096
BLOCK = 32


@dataclass(frozen=True)
class Way:
    """One way to round: calibration tokens (0 for none), whether they are weighted, how much is shrunk."""

    tokens: int
    weighted: bool = True
    shrinkage: float = SHRINKAGE


WAYS = {
    "nearest": Way(0),
    "tokens alike, 2,048, 0.01": Way(2048, False, 0.01),
    "weighted, 2,048, 0.01": Way(2048, True, 0.01),
    "weighted, 2,048, 0.1": Way(2048, True, 0.1),
    "weighted, 2,048, 0.3": Way(2048, True, 0.3),
    "weighted, 2,048, 1": Way(2048, True, 1.0),
    "tokens alike, 2,048, 0.3": Way(2048, False, 0.3),
    "weighted, 8,192, 0.01": Way(8192, True, 0.01),
    "weighted, 8,192, 0.3": Way(8192, True, 0.3),
}


def measure(quick: bool, folder: Path) -> Result:
    """Rounds the model in every way and reads held-out text."""
    packaged = ansnet(folder)
    model_folder, corpus = packaged.folder, packaged.corpus
    checkpoint = load_checkpoint(model_folder)
    model = model_of(checkpoint, torch.float32).requires_grad_(False)
    heldout = heldout_windows(corpus, "heldout", 1024 if quick else HELDOUT, model)
    exact = _answers(model, heldout)
    parameters = dict(model.named_parameters())
    matrices = {name: one.clone() for name, one in parameters.items() if name.endswith("proj.weight")}
    rows: list[dict[str, Any]] = []
    for name, way in WAYS.items():
        if quick and way.tokens > 2048:
            continue
        seen = _seen(folder, model_folder, corpus, way)
        rounded = {matrix: _rounded(weight, seen(matrix)) for matrix, weight in matrices.items()}
        for kind in ("down", "all"):
            for matrix, weight in matrices.items():
                chosen = kind == "all" or "down_proj" in matrix
                parameters[matrix].copy_(rounded[matrix] if chosen else weight)
            rows.append({"rounded by": name, "what": kind, **_apart(_answers(model, heldout), exact, heldout)})
    found = {(row["rounded by"], row["what"]): row["KL"] for row in rows}
    bar = at_most(
        "KL of all matrices: weighted and shrunk over tokens alike, hardly shrunk",
        found["weighted, 2,048, 0.3", "all"] / found["tokens alike, 2,048, 0.01", "all"],
        1.0,
    )
    return Result(tuple(rows), (bar,))


def _rounded(weight: torch.Tensor, seen: Seen | None) -> torch.Tensor:
    return round_blocks(weight, 4, BLOCK, None if seen is None else inputs_of(seen.moments)).values()


def _seen(folder: Path, model: Path, corpus: Path, way: Way) -> Callable[[str], Seen | None]:
    """What matrices saw, in one way; raw moments are kept in the folder."""
    if way.tokens == 0:
        return lambda matrix: None
    kept = folder / f"moments {way.tokens} {way.weighted}.pt"
    if not kept.exists():
        torch.save(_raw(model, corpus, way), kept)
    raw = {name: Seen((one[0],), one[1]) for name, one in torch.load(kept, weights_only=True).items()}

    def seen(matrix: str) -> Seen | None:
        found = seen_by(matrix, raw)
        return None if found is None else Seen(statistics.shrunk(found.strips, way.shrinkage), found.pull)

    return seen


def _raw(folder: Path, corpus: Path, way: Way) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    checkpoint = load_checkpoint(folder)
    model = model_of(checkpoint, torch.float32)
    windows = calibration(corpus, "train", way.tokens, model)
    if way.weighted:
        return {
            name: (one.moments, one.pull)
            for name, one in gather(model, checkpoint.structure, windows, silent, 0.0).items()
        }
    found: dict[str, torch.Tensor] = {}
    modules = {name: module for name, module in model.named_modules() if name.endswith("proj")}

    def reading(name: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            read = arguments[0].flatten(0, -2)
            found[name] = found.get(name, torch.zeros(())) + read.T @ read

        return hook

    for name, module in modules.items():
        module.register_forward_pre_hook(reading(name))
    with torch.no_grad():
        for window in windows:
            model(input_ids=window[None, :-1], use_cache=False)
    tokens = windows[:, 1:].numel()
    return {name: (one / tokens, torch.ones(modules[name].out_features)) for name, one in found.items()}


def _answers(model: PreTrainedModel, windows: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(input_ids=window[None, :-1], use_cache=False).logits[0].log_softmax(dim=-1) for window in windows]


def _apart(ours: list[torch.Tensor], exact: list[torch.Tensor], windows: torch.Tensor) -> dict[str, float]:
    kl = sum(
        float((theirs.exp() * (theirs - mine)).sum(dim=-1).mean()) for mine, theirs in zip(ours, exact, strict=True)
    )
    more = sum(
        float((theirs - mine).gather(-1, window[1:, None]).mean())
        for mine, theirs, window in zip(ours, exact, windows, strict=True)
    )
    return {"KL": kl / len(windows), "perplexity over the exact one's": math.exp(more / len(windows))}


if __name__ == "__main__":
    run_kept_benchmark("rounding", COMMAND, measure, ("torch", "transformers"))
