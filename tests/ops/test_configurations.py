"""Every key of every architecture's config.json, with values that a file may hold by mistake: a clean refusal, or a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, PreTrainedConfig

from colbuild.arch import ARCHITECTURES, checked_structure, own_settings, tensors
from colbuild.arch.files.model_folder import Model, fitted_ids
from colbuild.errors import BuildError
from colbuild.ops.shared.running_models import build_model
from tests.export.helpers import export, manifest, saved
from tests.helpers.configs import random_config

WRONG: list[Any] = [None, 0, -1, 1.5, "x", [], {}, True, 10**30]
OLDER = {"rope_theta", "rope_scaling", "partial_rotary_factor", "rotary_pct", "rotary_emb_base", "rope_local_base_freq"}
"""Keys that transformers reads although its classes do not declare them."""


def tiny(name: str) -> dict[str, Any]:
    config = random_config(name, 1)
    layers = "n_layer" if name == "gpt2" else "num_hidden_layers"
    return {**config, layers: 1, **({"layer_types": config["layer_types"][:1]} if "layer_types" in config else {})}


def built(config: dict[str, Any]) -> None:
    """Builds the model that a configuration describes, as every step does."""
    structure = checked_structure(config)
    weights = {tensor.name: torch.zeros(tensor.lengths) for tensor in tensors(structure)}
    build_model(config, weights, dtype=torch.float32)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_value_of_any_key_is_refused_by_name_or_makes_a_model(name: str) -> None:
    odd = []
    for key in (*ARCHITECTURES[name].settings, "use_cache"):
        for value in WRONG:
            config = {**tiny(name), key: value}
            try:
                checked_structure(config)
            except BuildError as error:
                if key not in error.message and key != "model_type":
                    odd.append(f"{key}: {value!r} is refused without its name: {error.message}")
                continue
            try:
                built(fitted_ids(Model(own_settings(config))).config)
            except Exception as error:  # noqa: BLE001
                odd.append(f"{key}: {value!r} is planned, and cannot be built: {error!r}")
    assert not odd, "\n".join(odd)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_settings_passed_on_are_those_that_transformers_declares_for_the_architecture(name: str) -> None:
    """A key that a new version of transformers adds must be looked at: it may change what a model computes."""
    declared = {one.name for one in dataclasses.fields(type(AutoConfig.for_model(name)))}
    common = {one.name for one in dataclasses.fields(PreTrainedConfig)}
    not_passed = {"use_cache", "pretraining_tp", "classifier_dropout", "is_decoder"}
    not_passed |= {key for key in declared if key.startswith("summary_")}
    listed = {key for key in ARCHITECTURES[name].settings if key not in OLDER} - {"model_type"}
    # Known to transformers' older files, or read with getattr.
    listed -= {"sliding_window_pattern"} | ({"head_dim"} - declared)
    assert listed == declared - common - not_passed


def test_what_is_of_another_machine_or_task_is_not_passed_on() -> None:
    running = {
        "_attn_implementation": "flash_attention_2",
        "attn_implementation": "flash_attention_2",
        "_name_or_path": "/home/somebody/model",
        "torch_dtype": "float16",
        "dtype": "auto",
        "use_cache": False,
        "quantization_config": None,
        "id2label": {"0": "x"},
        "output_attentions": True,
        "transformers_version": "4.31.0",
        "anything": [1],
    }
    assert own_settings({**tiny("llama"), **running}) == tiny("llama")
    built(own_settings({**tiny("llama"), **running}))


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling"),
        ("llama", {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}}, "rope_scaling"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_parameters"),
        ("llama", {"rope_parameters": {"rope_type": ["linear"]}}, "rope_parameters"),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": "2"}}, "rope_scaling.factor"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ("qwen2", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.2}}, "attention_factor"),
        ("qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "truncate": False}}, "truncate"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("mistral", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("gemma3_text", {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}, "rope_parameters.rope_theta"),
        ("gemma3_text", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_type"),
        ("qwen2", {"num_attention_heads": 5, "hidden_size": 40, "num_key_value_heads": 2}, "num_key_value_heads"),
        ("qwen3", {"layer_types": ["full_attention", "full_attention"]}, "layer_types"),
        ("qwen3", {"layer_types": ["sliding_attention"]}, "layer_types"),
        ("llama", {"head_dim": 7}, "head_dim"),
        ("llama", {"is_causal": False}, "is_causal"),
        ("llama", {"per_layer_config": {"0": {"num_attention_heads": 2}}}, "per_layer_config"),
        ("gpt2", {"n_head": 7}, "n_embd"),
        ("gpt_neox", {"rotary_pct": 0.01}, "rotary_pct"),
    ],
)  # fmt: skip
def test_what_no_graph_can_hold_is_refused_by_its_name(name: str, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(BuildError, match=named):
        checked_structure({**tiny(name), **settings})


def test_gemmas_head_width_needs_its_scalar() -> None:
    config = tiny("gemma3_text")
    del config["query_pre_attn_scalar"]
    with pytest.raises(BuildError, match="query_pre_attn_scalar is missing"):
        checked_structure(config)
    checked_structure({**config, "head_dim": 256, "hidden_size": 256 * config["num_attention_heads"]})


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3["original_max_position_embeddings"] = 32


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {"rope_scaling": LLAMA3, "rope_theta": 5e5}),
        ("mistral", {"rope_parameters": {**YARN, "rope_theta": 1e4}}),
        ("qwen2", {"rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.5}}),
        ("qwen3", {"rope_scaling": {"type": "linear", "factor": 2.0}, "hidden_act": "gelu_pytorch_tanh"}),
        ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 1e6}),
        ("gpt2", {"n_inner": None, "activation_function": "quick_gelu"}),
        ("gpt_neox", {"rope_scaling": {"type": "linear", "factor": 2.0}, "rotary_pct": 0.5, "hidden_act": "relu2"}),
    ],
)
def test_what_is_planned_is_exported(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    config = {**tiny(name), **settings}
    checked_structure(config)
    model, _ = saved(config, tmp_path / "model")
    assert manifest(export(model, tmp_path / "package", context=32))["parity"]["max_difference"] < 1e-3
