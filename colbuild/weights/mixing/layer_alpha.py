"""An alpha for each layer, found by gradient descent on the alphas alone; the anchors' weights stay fixed.

A mixture is linear in its alphas, so that one backward pass tells the slope of the loss along all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from colbuild.progress import Progress, Report
from colbuild.weights.mixing.alpha_search import Axes, Scored, Scores, Search, donor_alpha, loss_of
from colbuild.weights.mixing.mixture import Mix

STEPS: Final = 12
_RATE: Final = 0.1


@dataclass(frozen=True)
class Slopes:
    """The loss of a mixture in nats per token, and how fast it rises along its alphas.

    Attributes:
        loss: The loss.
        embedding: The slope along the alpha of embedding, head and what else is in no layer.
        layers: The slopes along each layer's.
    """

    loss: float
    embedding: float
    layers: tuple[float, ...]


def layer_alpha(slopes: Callable[[Mix], Slopes], alone: Sequence[bool]) -> Search:
    """A search from the best single alpha down the slopes; all single alphas are scored too.

    Args:
        slopes: Measures a mixture that has an alpha for each layer.
        alone: For each layer of the DesNet, whether only the larger anchor has it.
    """

    def search(scores: Scores, axes: Axes, report: Report) -> list[Scored]:
        import torch

        scored = donor_alpha(scores, axes, report)
        total = len(scored) + STEPS
        # A layer's alpha silences what only the larger anchor has in it; mixtures that keep all of that are of another kind.
        alike = [one for one in scored if not one.mix.nested and (not axes.fill or one.mix.fill == one.mix.mlp)]
        start = min(alike, key=loss_of).mix
        alphas = [start.embedding, *(start.depth if lone else start.mlp for lone in alone)]
        values = torch.tensor(alphas, dtype=torch.float64)
        optimizer = torch.optim.Adam([values], lr=_RATE)
        for step in range(STEPS):
            embedding, *layers = values.tolist()
            how = Mix(embedding, 0.0, 0.0, 0.0, 0.0, layers=tuple(layers))
            found = slopes(how)
            scored.append(Scored(how, found.loss))
            report(Progress(len(scored), total, "candidates", "scoring", {"loss": found.loss}))
            values.grad = torch.tensor([found.embedding, *found.layers], dtype=torch.float64)
            optimizer.param_groups[0]["lr"] = _RATE * (1.0 - step / STEPS)
            optimizer.step()
            values.clamp_(0.0, 1.0)
        return scored

    return search
