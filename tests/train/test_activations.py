"""What the plan counts of a block is what autograd keeps of it."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from colbuild.arch import read_structure
from colbuild.plan.workload.kept_activations import kept_bytes
from colbuild.train.losses.attention import use_blocked_attention
from colbuild.train.losses.forward import final_hidden

ROWS = 2
_NEOX = {"model_type": "gpt_neox", "num_attention_heads": 4, "hidden_size": 128, "intermediate_size": 512}
_GPT2 = {"model_type": "gpt2", "n_head": 4, "n_embd": 128, "n_inner": 512, "n_positions": 512}
_LLAMAS = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 160,
    "intermediate_size": 384,
    "head_dim": 32,
}
CONFIGS = [
    _GPT2,
    _NEOX,
    {**_LLAMAS, "model_type": "llama"},
    {**_LLAMAS, "model_type": "mistral", "sliding_window": None},
    {**_LLAMAS, "model_type": "qwen2"},
    {**_LLAMAS, "model_type": "qwen3"},
    {**_LLAMAS, "model_type": "granite", "residual_multiplier": 0.4},
    {**_LLAMAS, "model_type": "olmo2"},
    {**_LLAMAS, "model_type": "gemma3_text", "query_pre_attn_scalar": 32, "sliding_window": 512},
]


def kept(config: dict, layers: int, sequence: int, dtype: torch.dtype) -> float:
    """Bytes that autograd keeps of a token; what several operations keep counts once, and weights do not."""
    name = "n_layer" if config["model_type"] == "gpt2" else "num_hidden_layers"
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**config, **{name: layers}, vocab_size=64, bos_token_id=1, eos_token_id=1, pad_token_id=0),
        dtype=dtype,
    ).eval()
    use_blocked_attention(model)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            # The tensor with it, so that no other one takes its place.
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        final_hidden(model, torch.zeros((ROWS, sequence), dtype=torch.long))
    return sum(size for size, _ in found.values()) / (ROWS * sequence)


@pytest.mark.parametrize("sequence", [128, 256, 384])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_a_block_keeps_what_the_plan_counts(config, sequence):
    measured = kept(config, 2, sequence, torch.bfloat16) - kept(config, 1, sequence, torch.bfloat16)
    name = "n_layer" if config["model_type"] == "gpt2" else "num_hidden_layers"
    structure = read_structure({**config, name: 1, "vocab_size": 64})
    assert kept_bytes(structure, sequence, 2) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_a_block_in_fp32_keeps_about_what_the_plan_counts(config):
    measured = kept(config, 2, 256, torch.float32) - kept(config, 1, 256, torch.float32)
    name = "n_layer" if config["model_type"] == "gpt2" else "num_hidden_layers"
    structure = read_structure({**config, name: 1, "vocab_size": 64})
    assert kept_bytes(structure, 256, 4) == pytest.approx(measured, rel=0.15)
