"""The ranking of layers, beside models that are built without the removed ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from colbuild.arch import ARCHITECTURES
from colbuild.ops.shared import layer_ranking
from colbuild.ops.shared.layer_ranking import rank_layers
from colbuild.progress import silent
from colbuild.weights.files.checkpoint import Lineage
from colbuild.weights.prefix.subset import subset
from tests.weights.helpers import GQA, config_of, random_checkpoint, reference_model, silenced_layer

WINDOWS = torch.randint(0, 70, (3, 24), generator=torch.Generator().manual_seed(5))


def ranked(checkpoint, report=silent, windows=WINDOWS):
    return rank_layers(reference_model(checkpoint), checkpoint.structure, windows, report)


@torch.no_grad()
def log_likely(checkpoint):
    return torch.log_softmax(reference_model(checkpoint)(input_ids=WINDOWS, use_cache=False).logits, dim=-1)


def without(checkpoint, removed):
    """The model that lacks some layers."""
    shape = checkpoint.structure.shape
    kept = tuple(layer for layer in range(shape.layers) if layer not in removed)
    lineage = Lineage(tuple(range(shape.layers)), (*kept, *removed), torch.ones(99, shape.hidden))
    return subset(replace(checkpoint, lineage=lineage), replace(shape, layers=len(kept)))


def removed_one_by_one(checkpoint):
    """The ranking by trying every removal on a model built for it."""
    whole, removed = log_likely(checkpoint), []
    layers = range(checkpoint.structure.shape.layers)

    def distance(layer):
        likely = log_likely(without(checkpoint, [*removed, layer]))
        return float((whole.exp() * (whole - likely)).sum())

    while len(removed) < len(layers) - 1:
        removed.append(min((layer for layer in layers if layer not in removed), key=distance))
    return (*(layer for layer in layers if layer not in removed), *reversed(removed))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_where_every_layer_is_scored_the_ranking_is_that_of_models_built_without_them(name, monkeypatch):
    monkeypatch.setattr(layer_ranking, "_found", lambda scored, expected: False)
    # A config whose layers differ in kind is another model without some of them; here all are of one kind.
    config = config_of(name)
    if "layer_types" in config:
        config["layer_types"] = ["full_attention"] * 4
    checkpoint = random_checkpoint(config)
    assert ranked(checkpoint) == removed_one_by_one(checkpoint)


def test_a_layer_that_does_nothing_is_removed_first():
    assert ranked(silenced_layer(random_checkpoint(GQA), 2))[-1] == 2


def test_each_removal_is_reported():
    told = []
    ranked(random_checkpoint(GQA), told.append)
    assert [(one.done, one.total) for one in told] == [(1, 3), (2, 3), (3, 3)]


def test_later_removals_score_only_the_layers_that_may_be_the_best(monkeypatch):
    config = {**GQA, "num_hidden_layers": 12}
    scored = []
    distance = layer_ranking._Model.distance
    monkeypatch.setattr(
        layer_ranking._Model, "distance", lambda self, states: scored.append(1) or distance(self, states)
    )
    ranked(random_checkpoint(config))
    # Every layer of every smaller model would be 77 scorings.
    assert len(scored) <= 1 + 12 + 5 * 10


def test_text_beyond_what_a_ranking_needs_is_not_read(monkeypatch):
    monkeypatch.setattr(layer_ranking, "RANKED_TOKENS", 48)
    checkpoint = random_checkpoint(GQA)
    assert ranked(checkpoint) == ranked(checkpoint, windows=WINDOWS[:2])
