"""A model started in another architecture, shape or vocabulary."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from colbuild.arch import ARCHITECTURES, Role, bridged, parameters, tensors
from colbuild.arch.correspondence import lost_biases, unlike_norms
from colbuild.ops.shared.bridge_config import bridge_config
from colbuild.ops.shared.running_models import build_model
from colbuild.progress import silent
from colbuild.train.across.spelling import spelling_of
from colbuild.weights.bridge.blocks import read_block, write_block
from colbuild.weights.bridge.follow import follow, streams
from colbuild.weights.bridge.foreign_norms import fit_norms
from colbuild.weights.bridge.transplant import compose, random_start, transplant_body, transplant_rows
from colbuild.weights.files.checkpoint import check_tensors
from colbuild.weights.prefix.captured import collect
from colbuild.weights.prefix.subset import subset
from tests.train.small_tokenizers import byte_level
from tests.weights.helpers import config_of, logits, random_checkpoint, random_ordered

PAIRS = [(one, other) for one in ARCHITECTURES for other in ARCHITECTURES]
OLD, NEW = spelling_of(byte_level(600)), spelling_of(byte_level(340))


def target_of(ordered, name, **lengths):
    whole = bridged(ordered.structure, ARCHITECTURES[name], ordered.structure.shape.vocab, None)
    return whole.at(replace(whole.shape, **lengths))


def started(ordered, structure, weights=None):
    """The transplanted body, as transformers computes it from the bridge's config.json."""
    weights = transplant_body(ordered, structure, 0) if weights is None else weights
    return build_model(bridge_config(ordered, structure, None), weights, dtype=torch.float32)


def text(vocab, count=24, seed=3):
    return torch.randint(0, vocab, (count, 16), generator=torch.Generator().manual_seed(seed))


def said(model):
    """Logits on the tokens that `logits` computes them on."""
    tokens = torch.randint(0, model.config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        return model(input_ids=tokens).logits


# -- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_block_is_written_as_it_was_read(name):
    model = random_checkpoint(config_of(name))
    found = write_block(model.structure, read_block(model.structure, model.tensors, 1), 1)
    assert found.keys() == {tensor.name for tensor in tensors(model.structure) if tensor.layer == 1}
    assert all(torch.allclose(tensor, model.tensors[key], atol=1e-6) for key, tensor in found.items())


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS, ids=" to ".join)
def test_every_architecture_becomes_every_other_and_transformers_loads_it(pair):
    ordered = random_ordered(config_of(pair[0]))
    structure = target_of(ordered, pair[1])
    if lost_biases(ordered.structure, structure) or unlike_norms(ordered.structure, structure):
        pytest.skip("refused: tests/ops/test_bridge_pairs.py")
    weights = transplant_body(ordered, structure, 0)
    check_tensors(structure, weights)
    model = started(ordered, structure, weights)
    assert torch.isfinite(model(input_ids=text(structure.shape.vocab)).logits).all()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters(structure)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2"])
def test_alike_architectures_compute_the_same(name):
    ordered = random_ordered(config_of("llama") | {"attention_bias": False, "mlp_bias": False})
    model = started(ordered, target_of(ordered, name))
    assert torch.allclose(said(model), logits(ordered), atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_a_smaller_bridge_of_the_same_architecture_is_the_subset(name):
    ordered = random_ordered(config_of(name))
    structure = target_of(ordered, name, layers=3, ffn=24)
    found = transplant_body(ordered, structure, 0)
    wanted = subset(ordered, structure.shape).tensors
    assert all(torch.allclose(found[key], wanted[key]) for key in wanted)


def test_norms_over_heads_keep_the_length_of_what_they_read():
    ordered = random_ordered(config_of("llama") | {"attention_bias": False, "mlp_bias": False})
    structure = target_of(ordered, "qwen3")
    given = text(structure.shape.vocab)
    plain, fitted = started(ordered, structure), started(ordered, structure)
    fit_norms(fitted, structure, {Role.HEAD_NORM}, given)
    before, after = ((said(model) - logits(ordered)).square().mean() for model in (plain, fitted))
    assert after < before


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_a_body_without_counterparts_follows_the_stream_of_the_first(name):
    ordered = random_ordered(config_of("llama") | {"attention_bias": False, "mlp_bias": False})
    structure = target_of(ordered, name)
    fit, held = text(structure.shape.vocab, 200), text(structure.shape.vocab, 24, seed=4)
    whole = build_model(ordered.config, ordered.tensors, dtype=torch.float32)
    layers = range(structure.shape.layers)

    def apart(model):
        """How far the last stream is from the wanted one, beside its own size."""
        with torch.no_grad():
            wanted = streams(collect(whole, ordered.structure, held), ordered.structure, layers, structure.shape.hidden)
            found = streams(collect(model, structure, held), structure, layers, structure.shape.hidden)
        return float((found[-1] - wanted[-1]).square().mean() / wanted[-1].square().mean())

    model = started(ordered, structure)
    before = apart(model)
    wanted = streams(collect(whole, ordered.structure, fit), ordered.structure, layers, structure.shape.hidden)
    follow(model, structure, wanted, fit, silent)
    assert apart(model) < min(0.9, 0.8 * before)


def test_a_random_start_is_decided_by_its_seed():
    structure = random_checkpoint(config_of("gpt2")).structure
    one, same, other = (random_start(structure, seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


# -- vocabularies -----------------------------------------------------------------------------------------------------


def test_tokens_that_both_spell_are_copied_and_others_composed():
    parts = compose(NEW, OLD, len(NEW.spelled), {0: 0})
    back = compose(OLD, NEW, len(OLD.spelled), {0: 0})
    matrix = torch.randn(len(OLD.spelled), 8)
    rows = transplant_rows(matrix, parts)
    for index, token in enumerate(NEW.spelled):
        if token in OLD.by_bytes:
            assert torch.equal(rows[index], matrix[OLD.by_bytes[token]])
    assert torch.equal(rows[0], matrix[0])
    composed = {OLD.spelled[index]: part for index, part in enumerate(back) if part.same is None and part.overlap}
    assert len(composed) > 50
    for token, part in composed.items():
        assert sum(share for _, share in part.overlap) == pytest.approx(1.0)
        assert sum(share for _, share in part.pursued) == pytest.approx(1.0)
        assert all(NEW.spelled[at] in token for at, _ in (*part.overlap, *part.pursued))
        # What overlaps spells the token, one after the other.
        assert b"".join(NEW.spelled[at] for at, _ in part.overlap) == token


def test_no_composed_row_is_longer_than_rows_are():
    matrix = torch.randn(len(NEW.spelled), 8)
    parts = compose(OLD, NEW, len(OLD.spelled) + 5, {0: 0})
    rows = transplant_rows(matrix, parts)
    longest = matrix.norm(dim=1).max()
    assert all(rows[index].norm() <= longest for index, part in enumerate(parts) if part.same is None)
    # Rows that no token has are the mean of all.
    assert torch.allclose(rows[-1], matrix.mean(dim=0))


def test_a_vocabulary_is_itself():
    parts = compose(OLD, OLD, len(OLD.spelled), {0: 0})
    matrix = torch.randn(len(OLD.spelled), 4)
    assert torch.equal(transplant_rows(matrix, parts), matrix)
