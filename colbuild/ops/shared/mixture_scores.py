"""Scores mixtures of two anchors on calibration tokens, or the first part of them, with the gradient by the alphas."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from transformers import PreTrainedModel

from colbuild.arch import tensors
from colbuild.plan.steps.interpolate import first_windows
from colbuild.train.losses.gradient import loss_and_gradient
from colbuild.train.losses.logits_buffer import Room
from colbuild.train.watching.measure import Score, go_on, score_windows
from colbuild.weights.mixing.alpha_search import Scores
from colbuild.weights.mixing.interpolation import Neighbours, mix_tensor, mixing
from colbuild.weights.mixing.layer_alpha import Slopes
from colbuild.weights.mixing.mixture import Mix, Shares


class Scoring:
    """Mixtures of two anchors, one after the other in the same model.

    Args:
        pair: The anchors.
        model: A model of the DesNet's structure; its weights are overwritten.
        windows: Calibration tokens [windows, length + 1].
        check: Called before each window of a mixture that is scored; its error ends the search.
        asked: Their targets [windows, length], `IGNORED` where nothing is asked; by default each token after the first.
    """

    def __init__(
        self,
        pair: Neighbours,
        model: PreTrainedModel,
        windows: torch.Tensor,
        check: Callable[[], None] = go_on,
        asked: torch.Tensor | None = None,
    ) -> None:
        self._pair, self._model, self._windows, self._check = pair, model, windows, check
        self._asked = windows[:, 1:] if asked is None else asked
        self._weights = dict(model.named_parameters())
        self._room = Room()
        self._mixed: dict[str, Shares | None] = dict.fromkeys(self._weights)
        self._parts: dict[Mix, Score] = {}

    @property
    def scores(self) -> Scores:
        """The loss of mixtures in nats per token, on all of the text and on its first part."""
        return Scores(self.loss, lambda how: _loss(self._part(how)))

    def loss(self, how: Mix) -> float:
        """The loss of a mixture in nats per token; what its first part scored is not read again."""
        first = self._part(how)
        rest = slice(self._first, None)
        return _loss(first if self._first == len(self._windows) else first.plus(self._score(how, rest)))

    @property
    def _first(self) -> int:
        """The number of windows in the first part."""
        return first_windows(len(self._windows))

    def _part(self, how: Mix) -> Score:
        if how not in self._parts:
            self._parts[how] = self._score(how, slice(self._first))
        return self._parts[how]

    def _score(self, how: Mix, some: slice) -> Score:
        self._install(how)
        return score_windows(self._model, self._windows[some], self._check, self._asked[some], self._room)

    def slopes(self, how: Mix) -> Slopes:
        """The loss of a mixture that has an alpha for each layer, and its slopes along these."""
        self._install(how)
        loss = loss_and_gradient(self._model, self._windows, self._asked)
        embedding, layers = 0.0, [0.0] * len(how.layers)
        for layer, slope in self._slopes(how):
            if layer is None:
                embedding += slope
            else:
                layers[layer] += slope
        self._model.zero_grad(set_to_none=True)
        return Slopes(loss, embedding, tuple(layers))

    @torch.no_grad()
    def _install(self, how: Mix) -> None:
        """Makes the model this mixture: only tensors whose shares differ from those of the mixture before are written."""
        pair = mixing(self._pair, how)
        for tensor in tensors(pair.base.structure):
            shares = how.shares(tensor)
            if self._mixed[tensor.name] != shares:
                self._weights[tensor.name].copy_(mix_tensor(pair, tensor, how))
                self._mixed[tensor.name] = shares

    @torch.no_grad()
    def _slopes(self, how: Mix) -> Iterator[tuple[int | None, float]]:
        """(layer, slope of the loss along its alpha) of each tensor; the layer is None for those in none.

        A mixed tensor is linear in its alpha, so its derivative is the difference of the line's two ends.
        """
        count = len(how.layers)
        low, high = (Mix(alpha, 0.0, 0.0, 0.0, 0.0, layers=(alpha,) * count) for alpha in (0.0, 1.0))
        for tensor in tensors(self._pair.base.structure):
            gradient = self._weights[tensor.name].grad
            if gradient is not None:
                start, end = (mix_tensor(self._pair, tensor, one) for one in (low, high))
                yield tensor.layer, float((gradient.float() * (end.float() - start.float())).sum())


def _loss(score: Score) -> float:
    return score.nats / score.tokens
