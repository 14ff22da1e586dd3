"""Elastic steps: a nested student whose sub-shapes are prefixes of every axis and are trained too.

After MatFormer (arXiv 2310.07707) and Nemotron Elastic (arXiv 2511.16664). A step's sequences are shared out::

    rows of the batch     0 1 | 2 3 4 5 | 6 7
    pass through          full   random   smallest

A sub-shape computes with views of the full student's weights, so its gradients land in them, in the prefix that it uses. What
it computes is what `colbuild.weights.prefix.subset` would cut out.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, floor
from typing import Final

import torch
from transformers import PreTrainedModel

from colbuild.arch import Shape, Structure, forward_flops, parameters
from colbuild.arch.solving import NoShapeError, solve_between
from colbuild.train.batch import Batch
from colbuild.train.fused.modules import fuse
from colbuild.train.loop.micro_batch import recompute
from colbuild.train.loop.student import Forward, Pass, through
from colbuild.train.losses.forward import owner_of
from colbuild.train.losses.hidden_cosine import blocks_of
from colbuild.weights.files.checkpoint import Lineage
from colbuild.weights.prefix.subset import Part, parts

SIZES: Final = 8
"""Sizes between the ends that are trained: few, as each is a module that is kept, and many enough for their neighbours to
learn with them."""


@dataclass(frozen=True)
class Rows:
    """The numbers of rows of a batch in each pass.

    Attributes:
        full: Through the whole student.
        between: Through a random sub-shape.
        smallest: Through the smallest one.
    """

    full: int
    between: int
    smallest: int


def rows_of(step: int, rows: int, share: float, largest: float) -> Rows:
    """Returns the rows of each pass: `share` of them through a random sub-shape, `largest` of the rest through the larger end.

    Where that is no whole number it is so over the steps: after any number of them each part is within one row of its share.
    """
    begun, done = (floor(count * rows * share) for count in (step, step + 1))
    between = done - begun
    first, last = (ceil((count * rows - taken) * largest) for count, taken in ((step, begun), (step + 1, done)))
    full = last - first
    return Rows(full, between, rows - between - full)


def shapes_between(start: Structure, largest: Shape, smallest: Shape) -> tuple[Shape, ...]:
    """The sub-shapes that are trained between two nested ends, each as often as it is to be drawn.

    Half of the draws are shapes that `params:` would give a DesNet of that size. The others have the depth of the next
    larger or smaller one: a DesNet's shape may also be given by hand, where depth and widths need not go together.

    Args:
        start: Gives architecture and flags.
        largest: The upper end.
        smallest: The lower one, inside it.

    Returns:
        No shape if there is none between them.
    """
    low, high = parameters(start.at(smallest)), parameters(start.at(largest))
    line = []
    for place in range(SIZES):
        target = low + (high - low) * (2 * place + 1) // (2 * SIZES)
        try:
            line.append(solve_between(start, largest, smallest, target))
        except NoShapeError:
            # Between close neighbours a size may have no shape.
            continue
    line = [shape for shape in dict.fromkeys(line) if shape not in (largest, smallest)]
    crossed = [
        replace(one, layers=other.layers)
        for pair in pairwise((smallest, *line, largest))
        for one, other in (pair, pair[::-1])
        if one in line
    ]
    return (*line, *line, *crossed)


class Nested:
    """A student whose passes go through itself and its sub-shapes.

    Attributes:
        shapes: The sub-shapes that are drawn from, each once.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        structure: Structure,
        lineage: Lineage,
        smallest: Shape,
        *,
        share: float,
        largest: float,
        seed: int,
        context: int,
    ) -> None:
        """Prepares a student; its modules are made when they are first needed.

        Args:
            student: The whole model, in the coordinates of an ordered AnsNet.
            structure: Its structure.
            lineage: Which layers it has and how they rank.
            smallest: The lower end, inside it.
            share: The share of a batch's rows that pass through a random sub-shape.
            largest: The share of the other rows that pass through the whole student; the rest through the smallest sub-shape.
            seed: Decides, with the step, which one.
            context: Tokens in a row, to count FLOPs.

        Raises:
            BuildError: `smallest` does not lie inside the student.
        """
        self._student = student
        self._structure = structure
        self._smallest = smallest
        self._share = share
        self._largest = largest
        self._seed = seed
        self._weights: Mapping[str, torch.Tensor] = dict(student.named_parameters())
        draws = shapes_between(structure, structure.shape, smallest)
        self._draws = draws or (structure.shape, smallest)
        shapes = (structure.shape, *draws, smallest)
        # Once: a step asks for three of them.
        self._flops = {shape: forward_flops(structure.at(shape), context) for shape in shapes}
        self._parts = {shape: parts(structure, lineage, shape) for shape in (*draws, smallest)}
        self._modules: dict[Shape, PreTrainedModel] = {}
        self._recomputes = False
        self.shapes = tuple(dict.fromkeys(draws))

    def passes(self, step: int, rows: int) -> tuple[Pass, ...]:
        """Returns the passes of a step's rows through the student: a function of the seed, the step and their number only."""
        share = rows_of(step, rows, self._share, self._largest)
        found: list[Pass] = []
        for shape, count in (
            (self._structure.shape, share.full),
            (self._drawn(step), share.between),
            (self._smallest, share.smallest),
        ):
            if count:
                start = found[-1].stop if found else 0
                found.append(Pass(start, start + count, self.forward(shape), self._flops[shape]))
        return tuple(found)

    def forward(self, shape: Shape) -> Forward:
        """The forward pass of one shape: the student's own, one of `shapes`, or the smallest."""

        def forward(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
            model = self._student if shape == self._structure.shape else self.installed(shape)
            return through(model, batch)

        return forward

    def recompute(self) -> None:
        """Makes all sub-shapes compute their activations again in the backward pass; the student itself is left as it is."""
        if not self._recomputes:
            self._recomputes = True
            for shape, module in self._modules.items():
                recompute(blocks_of(module, self._structure.at(shape)))

    def _drawn(self, step: int) -> Shape:
        """Every draw comes up once before any does again: in a short training sizes get the same number of steps."""
        turn, place = divmod(step, len(self._draws))
        order = random.Random(f"{self._seed}:{turn}").sample(range(len(self._draws)), len(self._draws))  # noqa: S311
        return self._draws[order[place]]

    def installed(self, shape: Shape) -> PreTrainedModel:
        """One of `shapes`, or the smallest, as a model with the student's present weights.

        The views stay in it until the next pass, since activations may be computed again in the backward one.
        """
        known = self._modules.get(shape)
        module = _without_weights(self._student, self._structure.at(shape)) if known is None else known
        _install(module, self._parts[shape], self._weights)
        if known is None:
            fuse(module)
            if self._recomputes:
                recompute(blocks_of(module, self._structure.at(shape)))
            self._modules[shape] = module
        return module


def _without_weights(model: PreTrainedModel, structure: Structure) -> PreTrainedModel:
    """A model of another shape with the configuration, attention and buffers of this one, and no weights at all."""
    config = copy.deepcopy(model.config)
    for axis, key in structure.architecture.config_keys.items():
        setattr(config, key, getattr(structure.shape, axis))
    with torch.device("meta"):
        module: PreTrainedModel = type(model)(config)
    for owner in module.modules():
        for name in [name for name, _ in owner.named_parameters(recurse=False)]:
            delattr(owner, name)
    # What is stored in no file, such as rotary frequencies, depends on no axis that shrinks.
    for name, buffer in model.named_buffers():
        owner, leaf = owner_of(module, name)
        setattr(owner, leaf, buffer)
    return module.eval()


def _install(module: PreTrainedModel, chosen: tuple[Part, ...], weights: Mapping[str, torch.Tensor]) -> None:
    for part in chosen:
        owner, leaf = owner_of(module, part.name)
        setattr(owner, leaf, part.of(weights))
    if module.config.tie_word_embeddings:
        module.get_output_embeddings().weight = module.get_input_embeddings().weight
