"""Scores a mixture of two anchors on calibration tokens, with its gradient by the alphas."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from transformers import PreTrainedModel

from colbuild.arch import tensors
from colbuild.train.losses.gradient import loss_and_gradient
from colbuild.train.losses.logits_buffer import Room
from colbuild.train.watching.measure import go_on, mean_loss
from colbuild.weights.mixing.interpolation import Neighbours, mix_tensor, mixing
from colbuild.weights.mixing.layer_alpha import Slopes
from colbuild.weights.mixing.mixture import Mix


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
        self._pair, self._model, self._windows, self._check, self._asked = pair, model, windows, check, asked
        self._weights = dict(model.named_parameters())
        self._room = Room()

    def loss(self, how: Mix) -> float:
        """The loss of a mixture in nats per token."""
        self._install(how)
        return mean_loss(self._model, self._windows, self._check, self._asked, self._room)

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
        pair = mixing(self._pair, how)
        for tensor in tensors(pair.base.structure):
            self._weights[tensor.name].copy_(mix_tensor(pair, tensor, how))

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
