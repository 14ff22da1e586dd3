"""Finding the alphas of a DesNet: seconds and loss of `group_alpha`, beside the coordinate descent that it replaced.

    python -m tests.benchmarks.alphas [--quick] [--json FILE] [--work FOLDER]

The pairs of anchors are those of `init_quality`, and so are the calibration tokens; both share a work folder. The descent
scores every single alpha on a grid of quarters, then five alphas for each group, then finer steps; each mixture is written
whole into the model and scored on all of the text. Seconds are the process's own (CPU), so that other load matters less; both
ways run in turns. Losses are of held-out text in nats per token. `--quick` trains less, and leaves SmolLM2 out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks.harness import Bar, Result, at_most, run_kept_benchmark
from tests.benchmarks.init_models import SMALL, Effort, Models, Pair

if TYPE_CHECKING:
    from colbuild.weights.mixing.alpha_search import Axes, Scored
    from colbuild.weights.mixing.interpolation import Neighbours
    from colbuild.weights.mixing.mixture import Mix

UNLIKE: Final = "layers and FFN between two anchors"
WIDTHS: Final = "FFN between two anchors"
_REPEATS: Final = 2


@dataclass(frozen=True)
class Found:
    """What one way found.

    Attributes:
        best: The mixture.
        seconds: CPU seconds of the search.
        scored: How many mixtures were scored on all of the text.
        part: How many on half of it.
        calibration: The mixture's loss on all of the text.
        heldout: Its loss on other text.
    """

    best: Mix
    seconds: float
    scored: int
    part: int
    calibration: float
    heldout: float


def measure(quick: bool, folder: Path) -> Result:
    """All rows and bars."""
    models = Models(folder, Effort(heldout=4_096, small=131_072) if quick else Effort())
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for name in SMALL if quick else ("llama", *SMALL):
        for what, pair in ((UNLIKE, models.unlike(name)), (WIDTHS, models.widths(name))):
            now, before = compare(models, name, pair)
            rows += [_row(name, what, way, found) for way, found in (("group_alpha", now), ("descent", before))]
            told = f"{name}, {what}"
            bars.append(at_most(f"{told}: share of the descent's CPU seconds", now.seconds / before.seconds, 0.25))
            bars.append(at_most(f"{told}: loss above the descent's, nats", now.heldout - before.heldout, 0.005))
    return Result(tuple(rows), tuple(bars))


def _row(name: str, what: str, way: str, found: Found) -> dict[str, Any]:
    how = found.best
    alphas = (how.embedding, how.attention, how.mlp, how.fill, how.depth)
    return {
        "model": name,
        "made": what,
        "by": way,
        "CPU s": round(found.seconds, 2),
        "scored on half of the text": found.part,
        "on all of it": found.scored,
        "calibration loss": round(found.calibration, 4),
        "held-out loss": round(found.heldout, 4),
        "embedding, attention, FFN, fill, depth": ", ".join(f"{alpha:g}" for alpha in alphas),
    }


def compare(models: Models, name: str, pair: Pair) -> tuple[Found, Found]:
    """`group_alpha` and the descent between two anchors, the faster of their runs."""
    from colbuild.weights.files.checkpoint import load_checkpoint
    from colbuild.weights.mixing.interpolation import neighbours

    ends = neighbours(load_checkpoint(pair.larger), load_checkpoint(pair.smaller), pair.between)
    corpus, tokens = models.corpus(name), models.calibration(name)
    turns = [
        [way(ends, corpus, tokens, models.effort.heldout) for way in (_now, _before)]
        for _ in range(1 if name == "llama" else _REPEATS)
    ]
    now, before = (min(found, key=lambda one: one.seconds) for found in zip(*turns, strict=True))
    return now, before


def _now(ends: Neighbours, corpus: Path, tokens: int, heldout: int) -> Found:
    from colbuild.ops.shared.mixture_scores import Scoring
    from colbuild.ops.shared.running_models import asked_of, choice_text, model_of
    from colbuild.progress import silent
    from colbuild.train.loop.devices import forward_type
    from colbuild.weights.mixing.alpha_search import group_alpha

    model = model_of(ends.base, forward_type())
    windows = choice_text(corpus, "heldout", tokens, model)
    scoring = Scoring(ends, model, windows, asked=asked_of(corpus, "heldout", windows))
    began = time.process_time()
    scored = group_alpha(scoring.scores, _axes(ends), silent)
    return _found(ends, corpus, (tokens, heldout), scored, time.process_time() - began)


def _before(ends: Neighbours, corpus: Path, tokens: int, heldout: int) -> Found:
    import torch

    from colbuild.ops.shared.running_models import asked_of, choice_text, model_of
    from colbuild.train.loop.devices import forward_type
    from colbuild.train.watching.measure import mean_loss
    from colbuild.weights.mixing.interpolation import mix

    model = model_of(ends.base, forward_type())
    windows = choice_text(corpus, "heldout", tokens, model)
    targets = asked_of(corpus, "heldout", windows)
    weights = dict(model.named_parameters())

    def score(how: Mix) -> float:
        with torch.no_grad():
            for key, tensor in mix(ends, how).items():
                weights[key].copy_(tensor)
        return mean_loss(model, windows, targets=targets)

    began = time.process_time()
    scored = descent(score, _axes(ends))
    return _found(ends, corpus, (tokens, heldout), scored, time.process_time() - began)


def descent(score: Callable[[Mix], float], axes: Axes) -> list[Scored]:
    """Coordinate descent over a grid of quarters from the best single alpha, then steps of an eighth."""
    from colbuild.progress import silent
    from colbuild.weights.mixing.alpha_search import GRID, Scored, Scores, best_of, donor_alpha

    def near(value: float) -> tuple[float, ...]:
        return tuple(one for one in (value - 0.125, value + 0.125) if 0.0 <= one <= 1.0)

    scored = donor_alpha(Scores(score, score), axes, silent)
    for values in (lambda value: GRID, near):
        for name in axes.names(nested=False):
            best, known = best_of(scored).mix, {entry.mix for entry in scored}
            tried = [_with(best, name, value) for value in values(getattr(best, name))]
            scored += [Scored(how, score(how)) for how in tried if how not in known]
    return scored


def _with(how: Mix, name: str, value: float) -> Mix:
    change: dict[str, Any] = {name: value}
    return replace(how, **change)


def _axes(ends: Neighbours) -> Axes:
    from colbuild.weights.mixing.alpha_search import Axes

    return Axes(fill=ends.has_fill, depth=ends.has_depth)


def _found(ends: Neighbours, corpus: Path, text: tuple[int, int], scored: list[Scored], seconds: float) -> Found:
    from colbuild.ops.shared.running_models import model_of, text_before_choice
    from colbuild.train.loop.devices import forward_type
    from colbuild.train.watching.measure import mean_loss
    from colbuild.weights.mixing.alpha_search import best_of
    from colbuild.weights.mixing.interpolation import mix

    best = best_of(scored)
    model = model_of(replace(ends.base, tensors=mix(ends, best.mix)), forward_type())
    loss = mean_loss(model, text_before_choice(corpus, "heldout", *text, model))
    part = sum(entry.part for entry in scored)
    return Found(best.mix, seconds, len(scored) - part, part, best.loss, loss)


if __name__ == "__main__":
    run_kept_benchmark("alphas", "python -m tests.benchmarks.alphas", measure, ("torch", "transformers"))
