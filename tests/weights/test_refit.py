"""Fitting an FFN's output projection again to what a wider FFN writes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from colbuild.arch import ARCHITECTURES, Role, tensors
from colbuild.ops.shared.running_models import model_of
from colbuild.progress import Progress, silent
from colbuild.weights.mixing import refit as refitting
from colbuild.weights.mixing.refit import refit
from colbuild.weights.prefix.subset import subset
from tests.weights.helpers import config_of, logits, random_ordered, smaller_shape


def windows(checkpoint, seed=3, count=24):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, checkpoint.structure.shape.vocab, (count, 16), generator=generator)


def fitted(narrow, wide, text, report=silent):
    model = model_of(narrow, torch.float32)
    layers = [wide.ordered.layers.index(layer) for layer in narrow.ordered.layers]
    found = refit(model, narrow.structure, model_of(wide, torch.float32), layers, text, report)
    return replace(narrow, tensors={**narrow.tensors, **found}), model


def doubled(checkpoint, half):
    """The model with the second half of its FFN's channels equal to the first, each with an output of its own."""
    weights = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    for tensor in tensors(checkpoint.structure):
        if tensor.role is Role.FFN_IN:
            along = next(place for place, axis in enumerate(tensor.axes) if axis == "ffn")
            weight = weights[tensor.name].movedim(along, 0)
            weight[half : 2 * half] = weight[:half]
    return replace(checkpoint, tensors=weights)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_channels_that_others_can_stand_for_are_made_up_for(name, monkeypatch):
    monkeypatch.setattr(refitting, "RIDGE", 1e-9)
    wide = doubled(random_ordered(config_of(name)), 20)
    narrow = subset(wide, smaller_shape(wide, ffn=20))
    found, model = fitted(narrow, wide, windows(wide))
    before, after = ((logits(one) - logits(wide)).abs().max() for one in (narrow, found))
    assert before > 0.1
    assert after < 1e-3
    for tensor in tensors(narrow.structure):
        assert torch.equal(dict(model.named_parameters())[tensor.name], found.tensors[tensor.name])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_ffns_write_comes_nearer_on_other_text_too(name):
    wide = random_ordered(config_of(name), seed=2)
    narrow = subset(wide, smaller_shape(wide, layers=3, ffn=32))
    reached = subset(wide, smaller_shape(wide, layers=3))
    found, _ = fitted(narrow, wide, windows(wide, count=96))
    before, after = ((logits(one) - logits(reached)).square().mean() for one in (narrow, found))
    # A norm behind the branch rescales what is written, whatever it is.
    assert after < (1.0 if name == "gemma3_text" else 0.9) * before
    changed = {key for key in narrow.tensors if not torch.equal(narrow.tensors[key], found.tensors[key])}
    assert changed == {one.name for one in tensors(narrow.structure) if one.role is Role.FFN_OUT and len(one.axes) == 2}


def test_a_model_that_lacks_nothing_stays_as_it_is():
    wide = random_ordered()
    found, _ = fitted(wide, wide, windows(wide))
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in wide.tensors.items())


def test_each_layer_is_told():
    wide = random_ordered()
    told: list[Progress] = []
    fitted(subset(wide, smaller_shape(wide, ffn=20)), wide, windows(wide), told.append)
    assert [(one.done, one.total, one.unit) for one in told] == [(count, 4, "layers") for count in range(1, 5)]
