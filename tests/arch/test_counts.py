"""Counts from tables alone equal what transformers builds."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from colbuild.arch import config_for, forward_flops, norm_sites, parameters, read_structure, tensors
from colbuild.errors import BuildError
from tests.helpers.configs import random_llama_config


@pytest.mark.parametrize("seed", range(14))
def test_parameter_count_equals_transformers(seed):
    config = random_llama_config(seed)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config))
    assert parameters(read_structure(config)) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("seed", range(14))
def test_table_names_every_tensor_with_its_shape(seed):
    config = random_llama_config(seed)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config))
    theirs = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert {tensor.name: tensor.lengths for tensor in tensors(read_structure(config))} == theirs


@pytest.mark.parametrize("seed", range(4))
def test_flops_equal_what_torch_counts(seed):
    from torch.utils.flop_counter import FlopCounterMode

    config = random_llama_config(seed)
    length = 24
    model = LlamaForCausalLM(LlamaConfig(**config, attn_implementation="eager"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, length, dtype=torch.long), use_cache=False)
    structure = read_structure(config)
    shape = structure.shape
    # Eager attention computes the whole square of positions, and the rotary table is one small product per call.
    square = 4 * shape.layers * shape.heads * shape.head_dim * length
    causal = 4 * shape.layers * shape.heads * shape.head_dim * (length + 1) // 2
    rotary = 2 * length * (shape.head_dim // 2)
    ours = length * (forward_flops(structure, length) - causal + square)
    assert abs(counter.get_total_flops() - ours) <= rotary


def test_config_round_trips_through_its_structure():
    config = random_llama_config(3)
    assert read_structure(config_for(config, read_structure(config))) == read_structure(config)


def test_norm_sites_come_in_the_order_of_computation():
    sites = norm_sites(read_structure({**random_llama_config(0), "num_hidden_layers": 2}))
    assert [name.removeprefix("model.").removesuffix(".weight") for name in sites] == [
        "layers.0.input_layernorm",
        "layers.0.post_attention_layernorm",
        "layers.1.input_layernorm",
        "layers.1.post_attention_layernorm",
        "norm",
    ]


def test_unsupported_architecture_is_refused_by_name():
    with pytest.raises(BuildError, match="'mamba' is not supported") as caught:
        read_structure({"model_type": "mamba"})
    assert "llama" in (caught.value.hint or "")


def test_incomplete_config_names_the_missing_key():
    config = random_llama_config(0)
    del config["intermediate_size"]
    with pytest.raises(BuildError, match="intermediate_size"):
        read_structure(config)
