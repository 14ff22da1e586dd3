"""Distances that rotary attention tells, told by learned positions."""

from __future__ import annotations

import pytest
import torch

from colbuild.arch import ARCHITECTURES, bridged
from colbuild.weights.bridge.blocks import read_block
from colbuild.weights.bridge.learned_positions import Rotary, read_rotary, write_positions
from colbuild.weights.bridge.transplant import transplant_body
from tests.weights.helpers import config_of, random_ordered

CONFIG = config_of("llama") | {
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_size": 80,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 20,
    "rope_theta": 100.0,
}


def learned():
    """A gpt2 with the distances of a llama, and what both were made from."""
    ordered = random_ordered(CONFIG)
    structure = bridged(ordered.structure, ARCHITECTURES["gpt2"], ordered.structure.shape.vocab, None)
    weights = transplant_body(ordered, structure, 0)
    plain = {name: tensor.clone() for name, tensor in weights.items()}
    generator = torch.Generator().manual_seed(1)
    reads = [
        torch.randn(300, structure.shape.hidden, generator=generator) * 3.0 + 1.0 for _ in range(structure.shape.layers)
    ]
    rotary = read_rotary(ordered.config, 20)
    return structure, plain, weights, rotary, reads, write_positions(weights, structure, rotary, reads)


def test_fast_pairs_score_the_distance_as_the_mean_query_and_key_would():
    structure, plain, weights, rotary, reads, first = learned()
    pairs = (structure.shape.hidden - first) // 2
    assert 0 < pairs <= len(rotary.fast)
    for layer, read in enumerate(reads):
        before, after = (read_block(structure, which, layer) for which in (plain, weights))
        normal = (read / read.square().mean(dim=1, keepdim=True).sqrt()).mean(dim=0) * before.attention_norm.weight
        length = read.square().mean(dim=1).sqrt().median()
        query, key = ((part.weight @ normal).reshape(4, 20) for part in (before.query, before.key))
        # What attention reads of the positions alone, in a stream of the usual length.
        places = weights["transformer.wpe.weight"] / length * after.attention_norm.weight
        asks, answers = ((places @ part.weight.T).reshape(-1, 4, 20) for part in (after.query, after.key))
        fast = [*range(pairs), *range(10, 10 + pairs)]
        for here, there in ((9, 9), (9, 3), (30, 29), (50, 1)):
            found = (asks[here][:, fast] * answers[there][:, fast]).sum(dim=1)
            turns = torch.tensor(rotary.fast[:pairs]) * (here - there)
            z = torch.complex(query[:, :pairs], query[:, 10 : 10 + pairs])
            w = torch.complex(key[:, :pairs], key[:, 10 : 10 + pairs])
            wanted = (z * w.conj() * torch.polar(torch.ones(pairs), turns)).real.sum(dim=1)
            assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_nothing_but_attention_reads_the_channels_of_positions_and_no_word_writes_there():
    structure, plain, weights, _, _, first = learned()
    assert not weights["transformer.wte.weight"][:, first:].any()
    assert not weights["transformer.wpe.weight"][:, :first].any()
    assert not weights["transformer.ln_f.weight"][first:].any()
    for layer in range(structure.shape.layers):
        block, before = read_block(structure, weights, layer), read_block(structure, plain, layer)
        assert not block.ffn_norm.weight[first:].any()
        assert not block.value.weight[:, first:].any()
        assert torch.equal(block.value.weight[:, :first], before.value.weight[:, :first])
        slow = [pair for pair in range(10) if pair >= (structure.shape.hidden - first) // 2]
        rows = torch.tensor(slow)
        mine, theirs = (part.query.weight.reshape(4, 20, -1)[:, rows, :first] for part in (block, before))
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("config", "head_dim", "expected"),
    [
        ({"model_type": "llama", "rope_theta": 500.0}, 64, Rotary(500.0, 64)),
        ({"model_type": "llama", "rope_parameters": {"rope_theta": 10.0, "rope_type": "default"}}, 8, Rotary(10.0, 8)),
        ({"model_type": "gpt_neox", "rotary_emb_base": 10000, "rotary_pct": 0.5}, 64, Rotary(10000.0, 32)),
        # A quarter, where nothing is said.
        ({"model_type": "gpt_neox"}, 64, Rotary(10000.0, 16)),
        ({"model_type": "llama", "rope_theta": 1.0, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8, None),
        ({"model_type": "gemma3_text", "rope_theta": 1e6}, 8, None),
        ({"model_type": "gpt2"}, 8, None),
    ],
)
def test_it_reads_what_configurations_say(config, head_dim, expected):
    assert read_rotary(config, head_dim) == expected
