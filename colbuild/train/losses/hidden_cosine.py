"""hidden_cosine: the student's hidden states follow its teacher's, at the layers that both have.

A student of fewer layers has some of its teacher's. What one of them must hand on is what the next one was used to read, so
the student's layer is compared with the teacher's last layer before that::

    teacher   0   1   2   3   4   5
    student   0       1       2                 (layers 0, 2, 4 of the teacher)
    compared with 1       3       5

Directions are compared, as norms make no use of lengths (TinyBERT, arXiv 1909.10351, section 3, compares the states
themselves; the cosine is DistilBERT's, arXiv 1910.01108, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from colbuild.arch import Structure, tensors
from colbuild.train.fused.functions import Cosine
from colbuild.train.fused.kernels import fits

DEFAULT_WEIGHT = 0.1


def counterparts(student: Sequence[int], teacher: Sequence[int]) -> tuple[int, ...] | None:
    """For each block of a student the position of the teacher's block that it is compared with.

    Args:
        student: For each of its blocks, which of the AnsNet's it is; rising.
        teacher: The same of the teacher.

    Returns:
        None if the teacher lacks one of the student's blocks.
    """
    place = {layer: position for position, layer in enumerate(teacher)}
    if not place.keys() >= set(student):
        return None
    following = [place[layer] for layer in student[1:]] + [len(teacher)]
    return tuple(position - 1 for position in following)


def blocks_of(model: PreTrainedModel, structure: Structure) -> list[nn.Module]:
    """The transformer blocks of a model, found by the names of their tensors ("model.layers.0.…")."""
    stem = next(tensor.name for tensor in tensors(structure) if tensor.layer == 0).split(".0.")[0]
    modules = dict(model.named_modules())
    return [modules[f"{stem}.{layer}"] for layer in range(structure.shape.layers)]


@contextmanager
def watching(blocks: Sequence[nn.Module]) -> Iterator[list[torch.Tensor]]:
    """Collects what some blocks put out, [tokens, hidden] each, in the order in which they run."""
    seen: list[torch.Tensor] = []

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        seen.append(states.flatten(0, 1))

    handles = [block.register_forward_hook(hook) for block in blocks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def hidden_cosine(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
    """One minus the cosine between hidden states, the mean over tokens and layers; 0 where they are equal, with no gradient.

    Args:
        student: Hidden states [tokens, hidden] of each compared block.
        teacher: The same of the teacher. A wider one is compared on the channels that both have, which are its first.
    """
    apart = [_apart(one, other[:, : one.shape[1]]) for one, other in zip(student, teacher, strict=True)]
    return torch.stack(apart).mean()


def _apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    if fits(one, other) and other.stride(-1) == 1:
        found: torch.Tensor = Cosine.apply(one.contiguous(), other)  # type: ignore[no-untyped-call]
        return found
    # Half of the squared distance between unit vectors is 1 - cos, and exactly 0 where they are equal.
    difference = functional.normalize(one.float(), dim=-1) - functional.normalize(other.float(), dim=-1)
    return 0.5 * difference.square().sum(dim=-1).mean()
