"""Parts that benchmarks of chains share: a result that is made once, shapes between two anchors, the loss of a model folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from colbuild.arch import Shape, Structure, read_structure
from colbuild.arch.solving import solve_between, solve_down

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def kept(folder: Path, name: str, make: Callable[[Path, Path], None]) -> Path:
    """A folder that is made once: `make` fills the first of its two folders, and goes on from what lies in the second."""
    made, draft, partial = (folder / f"{name}{suffix}" for suffix in ("", ".draft", ".partial"))
    if not made.exists():
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        make(draft, partial)
        draft.rename(made)
        shutil.rmtree(partial, ignore_errors=True)
    return made


def structure_of(model: Path) -> Structure:
    """The structure of a model folder."""
    return read_structure(json.loads((model / "config.json").read_text(encoding="utf-8")))


def chain_shapes(start: Structure, large: int, small: int, between: int) -> tuple[Shape, ...]:
    """From the smaller of two anchors to the larger one, both included: evenly spaced sizes, as `params:` solves them."""
    high = solve_down(start, start.shape, large)
    low = solve_down(start, high, small)
    sizes = [small + (large - small) * place // (between + 1) for place in range(1, between + 1)]
    return (low, *(solve_between(start, high, low, size) for size in sizes), high)


def heldout_loss(model: Path, corpus: Path, tokens: int) -> float:
    """The loss of a model folder on held-out text, in nats per token; for models that were not chosen by such text."""
    from colbuild.ops.shared.running_models import calibration

    return _loss(model, corpus, lambda running: calibration(corpus, "heldout", tokens, running))


def unread_loss(model: Path, corpus: Path, tokens: int, chosen: int) -> float:
    """The same, on held-out text that comes before the `chosen` tokens by which mixtures are chosen."""
    from colbuild.ops.shared.running_models import text_before_choice

    return _loss(model, corpus, lambda running: text_before_choice(corpus, "heldout", chosen, tokens, running))


def _loss(model: Path, corpus: Path, windows_of: Callable[[PreTrainedModel], torch.Tensor]) -> float:
    from colbuild.ops.shared.running_models import asked_of, model_of
    from colbuild.train.loop.devices import forward_type
    from colbuild.train.watching.measure import mean_loss
    from colbuild.weights.files.checkpoint import load_checkpoint

    running = model_of(load_checkpoint(model), forward_type())
    windows = windows_of(running)
    return mean_loss(running, windows, targets=asked_of(corpus, "heldout", windows))
