"""Counts from tables alone equal what transformers builds, for every architecture."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from colbuild.arch import ARCHITECTURES, config_for, forward_flops, norm_sites, parameters, read_structure, tensors
from colbuild.errors import BuildError
from tests.helpers.configs import SMOLLM2, random_config, random_llama_config

CONFIGS = [
    *(random_llama_config(seed) for seed in range(10)),
    *(random_config(name, seed) for name in ARCHITECTURES for seed in range(6)),
]


def _model(config, **settings):
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), **settings)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_table_names_every_tensor_with_its_shape_and_counts_them(config):
    with torch.device("meta"):
        model = _model(config)
    theirs = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    structure = read_structure(config)
    assert {tensor.name: tensor.lengths for tensor in tensors(structure)} == theirs
    assert parameters(structure) == sum(parameter.numel() for parameter in model.parameters())
    assert structure.architecture.model_class == type(model).__name__


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_flops_equal_what_torch_counts(name, seed):
    from torch.utils.flop_counter import FlopCounterMode

    config = random_config(name, seed)
    length = 24
    model = _model(config, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, length, dtype=torch.long), use_cache=False)
    structure = read_structure(config)
    shape = structure.shape
    # Eager attention computes the whole square of positions, and a rotary table is one small product per call and kind.
    square = 4 * shape.layers * shape.heads * shape.head_dim * length
    causal = 4 * shape.layers * shape.heads * shape.head_dim * (length + 1) // 2
    rotary = 2 * 2 * length * (shape.head_dim // 2)
    ours = length * (forward_flops(structure, length) - causal + square)
    assert abs(counter.get_total_flops() - ours) <= rotary


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_a_configuration_leaves_out_is_what_transformers_takes(name):
    defaults = CONFIG_MAPPING[name]()
    table = ARCHITECTURES[name]
    config = {"model_type": name}
    for axis, key in table.config_keys.items():
        if axis in ("layers", "hidden", "heads", "vocab"):
            config[key] = getattr(defaults, key)
    if table.ffn_times is None:
        config[table.config_keys["ffn"]] = defaults.intermediate_size
    config |= {key: getattr(defaults, key) for key in table.fixed.values()}
    with torch.device("meta"):
        model = _model(config)
    assert parameters(read_structure(config)) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_config_round_trips_through_its_structure(name):
    config = random_config(name, 3)
    assert read_structure(config_for(config, read_structure(config))) == read_structure(config)


def test_a_list_with_an_entry_for_each_layer_keeps_those_of_the_layers_that_stay():
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "full_attention"]
    config = random_config("gemma3_text", 0) | {"num_hidden_layers": 4, "layer_types": kinds}
    structure = read_structure(config)
    shrunk = structure.at(structure.shape.__class__(**{**vars(structure.shape), "layers": 2}))
    assert config_for(config, shrunk, (1, 3))["layer_types"] == ["sliding_attention", "full_attention"]


def test_norm_sites_come_in_the_order_of_computation():
    sites = norm_sites(read_structure({**random_llama_config(0), "num_hidden_layers": 2}))
    assert [name.removeprefix("model.").removesuffix(".weight") for name in sites] == [
        "layers.0.input_layernorm",
        "layers.0.post_attention_layernorm",
        "layers.1.input_layernorm",
        "layers.1.post_attention_layernorm",
        "norm",
    ]


def test_an_unknown_architecture_is_refused_by_name():
    with pytest.raises(BuildError, match="'mamba' is not supported") as found:
        read_structure({"model_type": "mamba"})
    assert "gpt2" in str(found.value.hint)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("gpt2", "add_cross_attention", True),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("qwen2", "use_sliding_window", True),
        ("gemma3_text", "final_logit_softcapping", 30.0),
    ],
)
def test_a_setting_that_a_table_cannot_express_is_refused_by_name(name, setting, value):
    with pytest.raises(BuildError, match=f"{name} with {setting}: {value} is not supported"):
        read_structure(random_config(name, 0) | {setting: value})


def test_a_missing_key_is_named():
    config = dict(SMOLLM2)
    del config["hidden_size"]
    with pytest.raises(BuildError, match="hidden_size"):
        read_structure(config)
